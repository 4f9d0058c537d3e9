"""What generators of clients need of the document, beyond that it is valid; `make clients` shows the rest."""

from collections import Counter
from typing import Any

import orjson
import pytest

from homeport.contract.loading import each_operation
from tests.document import CONTRACT

Json = dict[str, Any]

DOCUMENT: Json = orjson.loads(CONTRACT.published.content)
SCHEMAS: dict[str, Json] = DOCUMENT["components"]["schemas"]
OBJECTS = {name: schema for name, schema in SCHEMAS.items() if "properties" in schema}

each_object = pytest.mark.parametrize("name", OBJECTS)


def class_name(owner: str, field: str) -> str:
    """What generators call an object that stands in a field of another one."""
    words = field.replace("-", "_").split("_")
    return owner + "".join(word[:1].upper() + word[1:] for word in words)


def test_method_names_are_unique_within_a_tag() -> None:
    names = Counter((operation["tags"][0], operation["operationId"].rpartition(".")[2]) for _, _, operation in each_operation(DOCUMENT))
    assert [name for name, count in names.items() if count > 1] == []


@each_object
def test_an_object_in_a_field_does_not_take_the_name_of_a_component(name: str) -> None:
    inline = [field for field, schema in OBJECTS[name]["properties"].items() if schema.get("type") == "object"]
    # What may be null gets another name.
    assert [
        field for field in inline if class_name(name, field) in SCHEMAS and not OBJECTS[name]["properties"][field].get("nullable")
    ] == []


@each_object
def test_a_nullable_object_is_called_by_its_name_and_holds_no_unnamed_ones(name: str) -> None:
    if not OBJECTS[name].get("nullable"):
        return
    assert OBJECTS[name].get("title") == name
    assert [field for field, schema in OBJECTS[name]["properties"].items() if schema.get("type") == "object"] == []


def test_every_alternative_of_a_discriminator_is_told_by_its_field() -> None:
    told = {name: schema for name, schema in SCHEMAS.items() if "discriminator" in schema}
    assert told
    for name, schema in told.items():
        field, mapping = schema["discriminator"]["propertyName"], schema["discriminator"]["mapping"]
        assert sorted(mapping.values()) == sorted(each["$ref"] for each in schema["anyOf"]), name
        for value, reference in mapping.items():
            alternative = SCHEMAS[reference.rpartition("/")[2]]
            assert alternative["properties"][field]["enum"] == [value]
            assert field in alternative["required"]


def test_files_are_as_long_as_a_body_may_be() -> None:
    fields = [(name, field, schema) for name, each in OBJECTS.items() for field, schema in each["properties"].items()]
    assert [(name, field) for name, field, schema in fields if schema.get("format") == "binary" and "maxLength" in schema] == []
