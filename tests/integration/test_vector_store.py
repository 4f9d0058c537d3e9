"""Namespaces of vectors on a real PostgreSQL: found again, kept apart, and safe under everything at once."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest
from psycopg.types.json import Jsonb

import adapters.pgvector.store as store_module
from adapters.pgvector import EmbeddingOf, IndexKeeper, VectorBatch, VectorStore, forget_namespaces, indexes
from adapters.pgvector.batch import pack_vector
from adapters.postgres import BinaryParameter, Database
from homeport.errors import Conflict, InvalidRequest
from tests.integration.parts import eventually

pytestmark = pytest.mark.anyio

OWNER = UUID("0193b5c6-0000-7000-8000-00000000000a")
OTHER = UUID("0193b5c6-0000-7000-8000-00000000000b")
NOTES = "notes"
EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


@pytest.fixture
def store(database: Database) -> VectorStore:
    return VectorStore(database)


def record(id: str, vector: list[float], **metadata: Any) -> dict[str, Any]:
    return {"id": id, "vector": vector, "metadata": metadata}


def batch(*records: dict[str, Any]) -> VectorBatch:
    return VectorBatch.pack(records)


def random_records(count: int, dimensions: int = 16, seed: int = 1) -> list[dict[str, Any]]:
    numbers = random.Random(seed)
    return [record(f"v{i}", [numbers.gauss(0, 1) for _ in range(dimensions)], number=i, group=i % 100) for i in range(count)]


@asynccontextmanager
async def keeping_indexes(store: VectorStore, rows: int) -> AsyncIterator[IndexKeeper]:
    keeper = IndexKeeper(store, indexed_rows=rows, checked_rows=1)
    store.on_written = keeper.note_written
    task = asyncio.create_task(keeper.run())
    try:
        yield keeper
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def is_indexed(store: VectorStore) -> bool:
    return all(namespace.is_indexed for namespace in await store.list_namespaces(OWNER))


async def ids_of(store: VectorStore, vector: list[float], top_k: int = 10, **options: Any) -> list[str]:
    return [match.id for match in await store.query(OWNER, NOTES, vector, top_k=top_k, **options)]


async def test_the_most_similar_come_first_with_their_cosine(store: VectorStore) -> None:
    assert (
        await store.upsert(OWNER, NOTES, batch(record("west", WEST), record("north", NORTH, a=[1, {"b": None}]), record("east", EAST))) == 3
    )
    found = await store.query(OWNER, NOTES, [2.0, 2.0], top_k=2)
    assert [match.id for match in found] in (["north", "east"], ["east", "north"])
    assert [round(match.score, 6) for match in found] == [0.707107, 0.707107]
    (exact,) = await store.query(OWNER, NOTES, NORTH, top_k=1)
    assert (exact.id, round(exact.score, 6), exact.metadata) == ("north", 1.0, {"a": [1, {"b": None}]})
    assert [round(match.score, 6) for match in await store.query(OWNER, NOTES, WEST, top_k=10)] == [1.0, 0.0, -1.0]


async def test_the_same_id_is_replaced_and_counts_once_in_a_batch(store: VectorStore) -> None:
    assert await store.upsert(OWNER, NOTES, batch(record("a", EAST, n=1), record("b", NORTH), record("a", WEST, n=2))) == 2
    assert (await store.query(OWNER, NOTES, WEST, top_k=1))[0].metadata == {"n": 2}
    await store.upsert(OWNER, NOTES, batch(record("a", NORTH, n=3)))
    assert sorted(await ids_of(store, NORTH)) == ["a", "b"]
    assert (await store.query(OWNER, NOTES, NORTH, top_k=1, filter={"n": 3}))[0].score == pytest.approx(1.0)


async def test_what_is_not_there_is_empty(store: VectorStore) -> None:
    assert await store.query(OWNER, "nowhere", EAST, top_k=5) == []
    assert await store.delete(OWNER, "nowhere", ids=["a"]) == 0
    assert await store.delete_namespace(OWNER, "nowhere") == 0
    assert await store.list_workspaces(OWNER) == []


async def test_another_length_is_refused_with_both_numbers(store: VectorStore) -> None:
    await store.upsert(OWNER, NOTES, batch(record("a", EAST)))
    with pytest.raises(InvalidRequest, match=r"2 dimensions, and this has 3\.") as refused:
        await store.upsert(OWNER, NOTES, batch(record("b", [1.0, 2.0, 3.0])))
    assert refused.value.code == "DIMENSION_MISMATCH"
    with pytest.raises(InvalidRequest, match=r"2 dimensions, and this has 3\."):
        await store.query(OWNER, NOTES, [1.0, 2.0, 3.0], top_k=1)
    assert await ids_of(store, EAST) == ["a"]


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([0.0, 0.0], "a vector of zeros"),
        ([0, -0.0], "a vector of zeros"),
        ([1e-40, 0.0], "a vector of zeros"),
        ([1e39, 0.0], "too large"),
        ([1e17, 0.0], "too large"),
        ([float("nan"), 0.0], "a vector of zeros"),
    ],
)
async def test_a_vector_without_direction_is_refused_by_its_place(store: VectorStore, vector: list[float], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as refused:
        batch(record("a", EAST), record("b", vector))
    assert refused.value.problems[0].pointer == "/vectors/1/vector"
    with pytest.raises(InvalidRequest, match=message):
        await store.query(OWNER, NOTES, vector, top_k=1)


async def test_vectors_of_a_batch_have_one_length() -> None:
    with pytest.raises(InvalidRequest, match=r"/vectors/1/vector: it has 1 numbers, and the first vector has 2"):
        batch(record("a", EAST), record("b", [1.0]))


async def test_metadata_that_cannot_be_stored_are_refused(store: VectorStore) -> None:
    with pytest.raises(InvalidRequest, match="U\\+0000"):
        await store.upsert(OWNER, NOTES, batch(record("a", EAST, text="a\0b")))
    assert await ids_of(store, EAST) == []


async def test_owners_do_not_see_each_other(store: VectorStore) -> None:
    await store.upsert(OWNER, NOTES, batch(record("mine", EAST)))
    await store.upsert(OTHER, NOTES, batch(record("theirs", [1.0, 2.0, 3.0])))
    assert await store.list_workspaces(OTHER) == [NOTES]
    assert [match.id for match in await store.query(OTHER, NOTES, [1.0, 1.0, 1.0], top_k=9)] == ["theirs"]
    assert await store.delete(OTHER, NOTES, ids=["mine"]) == 0
    assert await store.delete_namespace(OTHER, NOTES) == 1
    assert await ids_of(store, EAST) == ["mine"]


async def test_workspaces_are_apart_whatever_their_names(store: VectorStore) -> None:
    names = ['a"; DROP TABLE apps; --', "ä ö", "A", "a", "x" * 200]
    for name in names:
        await store.upsert(OWNER, name, batch(record(name, EAST)))
    assert await store.list_workspaces(OWNER) == sorted(names)
    for name in names:
        assert [match.id for match in await store.query(OWNER, name, EAST, top_k=9)] == [name]


async def test_delete_by_id_by_filter_and_by_both(store: VectorStore) -> None:
    await store.upsert(OWNER, NOTES, batch(*(record(f"{i}", EAST, odd=i % 2, doc={"id": i // 2}) for i in range(8))))
    assert await store.delete(OWNER, NOTES, ids=["0", "1", "none"], filter={"odd": 1}) == 1
    assert await store.delete(OWNER, NOTES, ids=["0"]) == 1
    assert await store.delete(OWNER, NOTES, filter={"doc": {"id": 1}}) == 2
    assert await store.delete(OWNER, NOTES, filter={"odd": 0}, kept=["4"]) == 1
    assert sorted(await ids_of(store, EAST)) == ["4", "5", "7"]


async def test_a_deleted_namespace_may_be_made_with_another_length_also_elsewhere(store: VectorStore, database: Database) -> None:
    elsewhere = VectorStore(database)
    await store.upsert(OWNER, NOTES, batch(record("a", EAST)))
    assert [match.id for match in await elsewhere.query(OWNER, NOTES, EAST, top_k=1)] == ["a"]
    assert await store.delete_namespace(OWNER, NOTES) == 1
    # What another process remembers of the old one does no harm.
    assert await elsewhere.query(OWNER, NOTES, [1.0, 2.0, 3.0], top_k=1) == []
    await elsewhere.upsert(OWNER, NOTES, batch(record("b", EAST)))
    await elsewhere.delete_namespace(OWNER, NOTES)
    await store.upsert(OWNER, NOTES, batch(record("a", [1.0, 0.0, 0.0])))
    await elsewhere.upsert(OWNER, NOTES, batch(record("b", [0.0, 1.0, 0.0])))
    assert sorted(match.id for match in await store.query(OWNER, NOTES, [1.0, 1.0, 0.0], top_k=9)) == ["a", "b"]


@pytest.mark.parametrize(("dimensions", "kind"), [(2000, "vector"), (2001, "halfvec"), (16000, "halfvec")])
async def test_long_vectors_are_kept_in_half_precision(store: VectorStore, database: Database, dimensions: int, kind: str) -> None:
    records = random_records(5, dimensions)
    await store.upsert(OWNER, NOTES, batch(*records))
    found = await store.query(OWNER, NOTES, records[3]["vector"], top_k=1)
    assert (found[0].id, found[0].score) == ("v3", pytest.approx(1.0, abs=1e-3))
    async with database.autocommit() as connection:
        row = await (
            await connection.execute("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attname = 'embedding'")
        ).fetchone()
    assert row == (f"{kind}({dimensions})",)


async def test_the_model_of_a_namespace_is_noted_and_another_is_refused(store: VectorStore) -> None:
    mini, large = EmbeddingOf("native", "mini"), EmbeddingOf("cloud", "large")
    await store.upsert(OWNER, NOTES, batch(record("a", EAST)))
    assert await store.embedding_of(OWNER, NOTES) is None
    await store.upsert(OWNER, NOTES, batch(record("b", EAST)), embedding=mini)
    assert await store.embedding_of(OWNER, NOTES) == mini
    await store.upsert(OWNER, NOTES, batch(record("c", EAST)), embedding=EmbeddingOf("other provider", "mini"))
    with pytest.raises(Conflict, match="were made by the model mini, and these by large") as refused:
        await store.upsert(OWNER, NOTES, batch(record("d", EAST)), embedding=large)
    assert refused.value.code == "EMBEDDING_MISMATCH"
    assert sorted(await ids_of(store, EAST)) == ["a", "b", "c"]


# --- with an index


async def test_a_large_namespace_gets_an_index_and_still_answers_rightly(store: VectorStore) -> None:
    records = random_records(600)
    async with keeping_indexes(store, 500):
        await store.upsert(OWNER, NOTES, batch(*records[:400]))
        await store.upsert(OWNER, "small", batch(*records[:10]))
        await store.upsert(OWNER, NOTES, batch(*records[400:]))
        await eventually(lambda: store.list_namespaces(OWNER), lambda found: found[0].is_indexed)
    notes, small = await store.list_namespaces(OWNER)
    assert (notes.workspace, notes.dimensions, notes.rows, small.is_indexed) == (NOTES, 16, 600, False)
    hits = [await ids_of(store, each["vector"], 1) for each in records[:50]]
    assert hits == [[each["id"]] for each in records[:50]]


async def test_a_filter_finds_all_there_are_wherever_they_are(store: VectorStore) -> None:
    records = random_records(1000)
    away = [-number for number in records[7]["vector"]]
    async with keeping_indexes(store, 500):
        await store.upsert(OWNER, NOTES, batch(*records))
        await eventually(lambda: is_indexed(store))
    matching = {each["id"] for each in records if each["metadata"]["group"] == 7}
    assert set(await ids_of(store, away, 20, filter={"group": 7})) == matching
    assert len(await ids_of(store, away, 5, filter={"group": 7})) == 5
    assert await ids_of(store, away, 5, filter={"group": 7, "number": 107}) == ["v107"]
    assert await ids_of(store, away, 5, filter={"group": 100}) == []


async def test_a_filter_that_leaves_much_finds_the_nearest_along_the_index(store: VectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "COMPARED_ROWS", 100)
    walked = []
    compared = store_module._compared_rows

    async def note(*arguments: Any) -> float:
        walked.append(await compared(*arguments))
        return 100.0

    monkeypatch.setattr(store_module, "_compared_rows", note)
    records = random_records(1000)
    for number, each in enumerate(records):
        each["metadata"]["half"] = number % 2
    async with keeping_indexes(store, 500):
        await store.upsert(OWNER, NOTES, batch(*records))
        await eventually(lambda: is_indexed(store))
    nearest = await ids_of(store, records[8]["vector"], 1000)
    assert await ids_of(store, records[8]["vector"], filter={"half": 0}) == [id for id in nearest if int(id[1:]) % 2 == 0][:10]
    assert walked == [500.0]  # of 1000 vectors


async def test_more_than_the_index_looks_at_come_back(store: VectorStore) -> None:
    records = random_records(900)
    async with keeping_indexes(store, 500):
        await store.upsert(OWNER, NOTES, batch(*records))
        await eventually(lambda: is_indexed(store))
    assert len(set(await ids_of(store, records[0]["vector"], 900))) == 900


@pytest.mark.parametrize(
    ("rows", "candidates", "with_filter"), [(-1, 150, 450), (100_000, 158, 474), (1_000_000, 500, 1000), (100_000_000, 1000, 1000)]
)
async def test_a_search_keeps_more_candidates_the_more_vectors_there_are(
    store: VectorStore, database: Database, rows: int, candidates: int, with_filter: int
) -> None:
    records = random_records(600)
    async with keeping_indexes(store, 500):
        await store.upsert(OWNER, NOTES, batch(*records))
        await eventually(lambda: is_indexed(store))
    (statements,) = await store.large_namespaces(0)
    vector = BinaryParameter(pack_vector(records[0]["vector"]))
    async with database.transaction() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        pretend = "SELECT pg_restore_relation_stats('schemaname', 'public', 'relname', %s::text, 'reltuples', %s::real)"
        await driver.execute(pretend, (statements.table, rows))
        for statement, values, wanted in (
            (statements.nearest, (vector, 1), candidates),
            (statements.nearest_matching, (vector, Jsonb({"group": 0}), 1), with_filter),
        ):
            assert [row[0] for row in await (await driver.execute(statement, values)).fetchall()] == ["v0"]
            assert await (await driver.execute("SHOW hnsw.ef_search")).fetchone() == (str(wanted),)
    async with database.autocommit() as alone:
        await alone.execute(statements.nearest, (vector, 1))
        assert await (await alone.execute("SHOW hnsw.ef_search")).fetchone() == ("40",)


async def test_an_index_is_built_while_vectors_are_written_and_none_is_lost(store: VectorStore) -> None:
    records = random_records(3000, 64)
    async with keeping_indexes(store, 1000):
        await asyncio.gather(*(store.upsert(OWNER, NOTES, batch(*records[i : i + 100])) for i in range(0, 3000, 100)))
        await eventually(lambda: is_indexed(store))
    assert await store.delete(OWNER, NOTES, filter={}) == 3000


async def test_a_build_that_was_interrupted_is_done_again(store: VectorStore, database: Database) -> None:
    await store.upsert(OWNER, NOTES, batch(*random_records(600)))
    async with database.autocommit() as connection:
        # A build that fails leaves an index that is not valid.
        table = await (await connection.execute("SELECT 'vector_namespaces_' || id FROM vector_namespaces")).fetchone()
        assert table is not None
        with pytest.raises(Exception, match="division by zero"):
            await connection.execute(f"CREATE INDEX CONCURRENTLY {table[0]}_embedding_idx ON {table[0]} ((1 / (length(id) - length(id))))")
    async with keeping_indexes(store, 500):
        await eventually(lambda: is_indexed(store))
    assert len(await ids_of(store, random_records(1)[0]["vector"], 5)) == 5


async def test_an_index_is_built_where_there_is_too_little_shared_memory_for_several_processes(
    store: VectorStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def more_than_there_is(*_: object) -> int:
        return 1024 * 1024  # a terabyte

    monkeypatch.setattr(indexes, "find_build_memory_mb", more_than_there_is)
    await store.upsert(OWNER, NOTES, batch(*random_records(600)))
    async with database.autocommit() as connection:
        kind = await (await connection.execute("SHOW dynamic_shared_memory_type")).fetchone()
        if kind != ("posix",):
            pytest.skip("shared memory is files on the disk here, and a terabyte of them would fill it")
        [statements] = await store.large_namespaces(0)
        await connection.execute(f"ALTER TABLE {statements.table} SET (parallel_workers = 2)")
        assert await indexes.build_if_large(connection, statements, 500)
        left = await (await connection.execute("SHOW max_parallel_maintenance_workers")).fetchone()
        assert left == ("2",)
    assert await is_indexed(store)


async def test_a_namespace_is_deleted_while_its_index_is_built(store: VectorStore) -> None:
    async with keeping_indexes(store, 1000):
        for _ in range(3):
            await store.upsert(OWNER, NOTES, batch(*random_records(2000, 64)))
            with anyio.fail_after(5):
                assert await store.delete_namespace(OWNER, NOTES) == 2000
        await store.upsert(OWNER, NOTES, batch(*random_records(1100, 64)))
        await eventually(lambda: is_indexed(store))


async def test_what_was_forgotten_with_its_owner_is_dropped_later_and_nothing_else(store: VectorStore, database: Database) -> None:
    async def tables() -> set[str]:
        async with database.autocommit() as connection:
            rows = await connection.execute("SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE 'vector\\_namespaces%'")
            return {row[0] for row in await rows.fetchall()}

    for owner, name in ((OWNER, "a"), (OWNER, "b"), (OTHER, "a")):
        await store.upsert(owner, name, batch(record("x", EAST)))
    async with database.autocommit() as connection:
        await connection.execute("CREATE TABLE vector_namespaces_of_mine (n int)")
    before = await tables()
    async with database.transaction() as transaction:
        await forget_namespaces(transaction, OWNER)
    assert await store.list_workspaces(OWNER) == []
    assert await tables() == before
    await store.drop_orphans()
    assert len(before - await tables()) == 2
    assert "vector_namespaces_of_mine" in await tables()
    assert [match.id for match in await store.query(OTHER, "a", EAST, top_k=1)] == ["x"]
    assert await store.query(OWNER, "a", EAST, top_k=1) == []


# --- at once


async def test_the_same_ids_are_written_at_once_in_any_order(store: VectorStore, database: Database) -> None:
    records = random_records(200)
    orders = [records, records[::-1], random.Random(3).sample(records, 200)]
    stores = [store, VectorStore(database), VectorStore(database)]
    await asyncio.gather(*(each.upsert(OWNER, NOTES, batch(*order)) for _ in range(5) for each, order in zip(stores, orders, strict=True)))
    assert len(await ids_of(store, records[0]["vector"], 1000)) == 200


async def test_a_namespace_is_made_once_when_many_begin_it(database: Database) -> None:
    stores = [VectorStore(database) for _ in range(5)]
    await asyncio.gather(*(each.upsert(OWNER, NOTES, batch(record(f"{i}", EAST))) for i, each in enumerate(stores)))
    assert sorted(await ids_of(stores[0], EAST)) == ["0", "1", "2", "3", "4"]


async def test_reading_and_writing_go_on_while_a_namespace_is_deleted_again_and_again(store: VectorStore, database: Database) -> None:
    elsewhere = VectorStore(database)
    records = random_records(20)
    is_over = asyncio.Event()

    async def write(to: VectorStore) -> None:
        while not is_over.is_set():
            assert await to.upsert(OWNER, NOTES, batch(*records)) == 20

    async def read(of: VectorStore) -> None:
        while not is_over.is_set():
            found = await of.query(OWNER, NOTES, records[0]["vector"], top_k=5, filter={"group": 0})
            assert {match.id for match in found} <= {"v0"}

    async with asyncio.TaskGroup() as group:
        for work in (write(store), write(elsewhere), read(store), read(elsewhere)):
            group.create_task(work)
        for _ in range(30):
            await elsewhere.delete_namespace(OWNER, NOTES)
            await asyncio.sleep(0)
        is_over.set()
    await store.upsert(OWNER, NOTES, batch(*records))
    assert len(await ids_of(store, records[0]["vector"], 50)) == 20


async def test_what_was_answered_is_there(store: VectorStore) -> None:
    owner = uuid4()
    counts = await asyncio.gather(*(store.upsert(owner, f"w{i % 7}", batch(record(f"{i}", EAST))) for i in range(70)))
    assert sum(counts) == 70
    assert [await store.delete_namespace(owner, f"w{i}") for i in range(7)] == [10] * 7
