"""What a validator says about a value that does not fit."""

import pytest

from homeport.contract.schemas import Schemas

TEXT_OR_LIST = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "minItems": 1, "items": {"anyOf": [{"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}]}},
    ]
}
TWO_LISTS = {"anyOf": [{"type": "array", "minItems": 2}, {"type": "array", "items": {"type": "string"}}]}


@pytest.mark.parametrize(
    ("schema", "value", "told"),
    [
        (TEXT_OR_LIST, "", [("", "the value is shorter than 1 character")]),
        (TEXT_OR_LIST, [], [("", "the value has less than 1 item")]),
        (TEXT_OR_LIST, ["a", "", -1], [("/1", "the value is shorter than 1 character"), ("/2", "the value is less than the minimum of 0")]),
        (TEXT_OR_LIST, ["a", {}], [("/1", "the value is not valid under any of the schemas listed in the 'anyOf' keyword")]),
        (TEXT_OR_LIST, 5, [("", "the value is not valid under any of the schemas listed in the 'anyOf' keyword")]),
        (TWO_LISTS, [1], [("", "the value is not valid under any of the schemas listed in the 'anyOf' keyword")]),
    ],
)
def test_of_alternatives_the_one_of_the_right_type_is_explained(
    schema: dict[str, object], value: object, told: list[tuple[str, str]]
) -> None:
    problems = Schemas({}).compile(schema).problems(value, "body")
    assert [(problem.pointer, problem.detail) for problem in problems] == told
