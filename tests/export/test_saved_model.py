"""The SavedModel: that it answers as the model in memory does, on Beam's examples and on raw ids alike, and how versions appear."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from export import saved_model
from export.id_table import IdTable
from export.ranking_module import RankingModule, served_datastore, served_situation, typed_datastore
from export.request_examples import build_request_examples
from export.signatures import build_signatures
from export.verify import TOLERANCE, verify
from tf_lift import train
from tf_lift.data.dataset_files import open_dataset
from tf_lift.data.examples import build_example_spec
from tf_lift.data.raw_requests import build_history, build_request
from tf_lift.datastore import build_datastore
from tf_lift.encode import read_datastore
from tf_lift.fit import read_predictor
from tf_lift.workspace import Workspace

END = 1_500_000_000 + 290 * 3600  # epoch seconds
NO_PRETRAINING = "pretraining.enabled=false"
CASES = {
    "rolling": (),
    "rolling_others": (NO_PRETRAINING, "retrieval.exclude_own_user=true"),
    "honest": ("honest", NO_PRETRAINING),
    "static_rim_others": ("rim", NO_PRETRAINING, "retrieval.exclude_own_user=true", "retrieval.min_future=2"),
    "classes_int8": ("classes", "export.state_type=int8"),
    "situation": (NO_PRETRAINING, "situation.relations=all", "situation.max_followers=9"),
    "overlap": (
        NO_PRETRAINING,
        "situation.overlap=true",
        "situation.overlap_rows=20",
        "situation.overlap_neighbours=3",
    ),
    "encoded_futures": (
        "rim",
        "predictor.standardise=true",
        "predictor.history_statistics=true",
        "situation.overlap=true",
        "situation.overlap_rows=20",
        "situation.overlap_neighbours=3",
        "situation.encoded_neighbours=2",
    ),
    "honest_situation": (
        "honest",
        NO_PRETRAINING,
        "situation.relations=future",
        "situation.history_rows=2",
        "situation.overlap=true",
        "predictor.recency_days=[0.5]",
    ),
}


@dataclasses.dataclass(frozen=True)
class Exported:
    """A trained workspace and its first exported version."""

    workspace: Workspace
    folder: Path
    signatures: dict[str, Any]


@pytest.fixture(scope="module")
def exported(tiny: Any) -> Exported:
    workspace = tiny.trained()
    folder = saved_model.run(workspace)  # verifies it
    return Exported(workspace, folder, tf.saved_model.load(str(folder)).signatures)


def trained_case(tiny: Any, case: str) -> Workspace:
    """A workspace with a fitted predictor."""
    overrides = [
        value
        for name in CASES[case]
        for value in (getattr(tiny, name) if name in ("honest", "rim", "classes") else (name,))
    ]
    if not overrides:
        return tiny.trained()
    config = tiny.dataset(*overrides).config
    train.run(config, ["pretrain", "encode", "fit"])
    return Workspace(config)


def call(signature: Any, request: dict[str, Any]) -> dict[str, np.ndarray]:
    """Calls a signature with lists or arrays."""
    tensors = {
        name: tf.constant(value.tolist(), tf.string)
        if isinstance(value, np.ndarray) and value.dtype.hasobject
        else tf.constant(value)
        for name, value in request.items()
    }
    return {name: answer.numpy() for name, answer in signature(**tensors).items()}


def ask(exported: Exported, **changes: Any) -> dict[str, np.ndarray]:
    """Explains one request."""
    request = {
        "user": ["u1"],
        "candidates": [["i1", "i2", "i3"]],
        "time": np.array([END]),
        "channel": ["c1"],
    }
    return call(exported.signatures["explain"], request | changes)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_raw_ids_give_what_the_examples_give(tiny: Any, case: str, tmp_path: Path) -> None:
    workspace = trained_case(tiny, case)
    dataset = open_dataset(workspace)
    spec = build_example_spec(workspace.config, len(dataset.info.statistic_sets))
    store = typed_datastore(workspace.config, read_datastore(workspace, dataset))
    served = served_datastore(dataset, store)
    predictor = read_predictor(workspace, dataset, served, spec, served_situation(dataset, served))
    signatures = build_signatures(RankingModule(dataset, predictor, spec, tmp_path))
    in_memory = read_predictor(workspace, dataset, store, spec)
    for split in ("train", "test"):
        paths = sorted(tf.io.gfile.glob(dataset.example_pattern(split)))
        serialized = list(tf.data.TFRecordDataset(paths).take(120).as_numpy_iterator())
        slate = dataset.row_references.resolve(spec.parse(tf.constant(serialized)))
        mask = slate["mask"].numpy()
        expected = np.where(mask, tf.sigmoid(in_memory(slate, training=False).logits), 0.0)
        from_examples = call(signatures["serving_default"], {"examples": np.array(serialized, object)})
        np.testing.assert_array_equal(from_examples["mask"], mask)
        np.testing.assert_allclose(from_examples["probabilities"], expected, atol=TOLERANCE)
        request = build_request(dataset, slate)
        known = request["candidates"] != ""
        assert known.sum() > 0.8 * mask.sum() and known[:, 0].all() and not (known & ~mask).any()
        if "rim" not in CASES[case]:  # whose drawn items may be unknown
            np.testing.assert_array_equal(known, mask)
        history = build_history(dataset, slate["history_position"].numpy(), workspace.config.retrieval.context_length)
        from_history = call(signatures["rank"], {**request, **history})
        np.testing.assert_allclose(from_history["probabilities"], np.where(known, expected, 0), atol=TOLERANCE)
        pairs = np.array(build_request_examples(request, dataset.config.schema), object)
        classified = call(signatures["classify"], {"inputs": pairs})
        np.testing.assert_allclose(classified["scores"][:, 1], expected[:, 0], atol=TOLERANCE)
        np.testing.assert_allclose(classified["scores"].sum(axis=1), 1, rtol=1e-6)
        assert (classified["classes"] == [b"negative", b"positive"]).all()
        np.testing.assert_array_equal(
            call(signatures["regress"], {"inputs": pairs})["outputs"], classified["scores"][:, 1]
        )
        from_ids = call(signatures["explain"], request)
        np.testing.assert_array_equal(from_ids["mask"], known)
        np.testing.assert_allclose(from_ids["probabilities"], np.where(known, expected, 0), atol=TOLERANCE)
        np.testing.assert_allclose(
            from_ids["neighbour_score"][known], slate["neighbour_scores"].numpy()[known], rtol=1e-6
        )
        rows = slate["neighbour_rows"].numpy()
        times = np.where(rows >= 0, dataset.log.time[rows], 0)
        np.testing.assert_array_equal(from_ids["neighbour_time"][known], times[known])
        if "exclude_own_user=true" in " ".join(CASES[case]):
            assert not (from_ids["neighbour_user"] == request["user"].astype(bytes)[:, None, None]).any()


@pytest.mark.slow
def test_reasons_are_what_followed_the_users_last_items(tiny: Any) -> None:
    workspace = trained_case(tiny, "situation")
    folder = saved_model.run(workspace)  # verifies it
    model = tf.saved_model.load(str(folder))
    dataset = open_dataset(workspace)
    log, item, table = dataset.log, dataset.config.schema.item_index, dataset.transitions
    vocabulary = dataset.info.vocabularies[item]
    candidates, num_found = vocabulary.ids(["i1", "i2", "i3"]), 0
    for user in (1, 2, 3):
        answers = ask(Exported(workspace, folder, model.signatures), user=[f"u{user}"])
        user_ids = dataset.info.vocabularies[dataset.config.schema.user_index].ids([f"u{user}"])
        stop = log.rows_before(user_ids, np.array([END]))[0]
        items = list(dict.fromkeys(log.fields[stop - 6 : stop, item][::-1].tolist()))  # each once, the newest first
        for place, candidate in enumerate(candidates):
            wanted = [
                (table.totals(0, *np.array([[one], [candidate]]), np.array([snapshot_at(table)]))[0], one)
                for one in items
            ]
            rows = {one: table.value_counts[1][one, snapshot_at(table)] for one in items}
            wanted.sort(key=lambda pair: -pair[0] / np.sqrt(max(rows[pair[1]], 1)))
            names = [vocabulary.value(one) if total else "" for total, one in (*wanted, *[(0, 0)] * 3)][:3]
            assert [name.decode() for name in answers["because_item"][0, place]] == names
            assert answers["because_went_on"][0, place].tolist() == [total for total, _ in (*wanted, *[(0, 0)] * 3)][:3]
            times = [int(rows[one]) if total else 0 for total, one in (*wanted, *[(0, 0)] * 3)][:3]
            assert answers["because_times"][0, place].tolist() == times
            num_found += sum(map(bool, names))
    assert num_found > 12


def snapshot_at(table: Any) -> int:
    return int(np.searchsorted(table.times, END, side="right")) - 1


def test_unknown_ids_give_probabilities(exported: Exported) -> None:
    for changes in (
        {"user": ["nobody"]},
        {"candidates": [["i1", "nothing", "i3"]]},
        {"channel": [""]},
        {"channel": ["c99"]},
    ):
        answers = ask(exported, **changes)
        assert answers["mask"].all() and ((answers["probabilities"] > 0) & (answers["probabilities"] < 1)).all()
    before_all = ask(exported, time=np.array([0]))
    assert np.isfinite(before_all["probabilities"]).all() and not before_all["neighbour_user"].astype(str).any()
    nobody = ask(exported, user=["nobody"], candidates=[["nothing", "no other", "i1"]])["probabilities"][0]
    assert nobody[0] == nobody[1] != nobody[2]


def test_padding_gets_zero_and_changes_no_other_candidate(exported: Exported) -> None:
    plain = ask(exported)["probabilities"]
    answers = ask(exported, candidates=[["", "i1", "i2", "", "i3"]])
    np.testing.assert_array_equal(answers["mask"], [[False, True, True, False, True]])
    np.testing.assert_allclose(answers["probabilities"][:, [1, 2, 4]], plain, atol=1e-6)
    assert not answers["probabilities"][:, [0, 3]].any()


def test_neighbours_and_what_followed_them_lie_before_the_request(exported: Exported) -> None:
    time = 1_500_000_000 + 200 * 3600
    answers = ask(exported, time=np.array([time]))
    is_there = answers["neighbour_user"] != b""
    assert is_there.any() and answers["neighbour_next_items"].shape == (1, 3, 4, 5)
    assert (answers["neighbour_time"] < time).all() and (answers["neighbour_time"][is_there] > 0).all()
    np.testing.assert_allclose(answers["attention"].sum(axis=-1)[is_there.any(axis=-1)], 1.0, rtol=1e-5)
    np.testing.assert_array_equal(answers["neighbour_item"] != b"", is_there)


def rank(exported: Exported, interactions: list[tuple[str, str, int]], **changes: Any) -> np.ndarray:
    """Probabilities of three items, given (item, behaviour, time) of the history."""
    items, behaviours, times = ([[row[place] for row in interactions]] for place in range(3))
    request = {
        "user": ["u1"],
        "candidates": [["i1", "i2", "i3"]],
        "time": np.array([END]),
        "channel": ["c1"],
        "age": [""],
        "history_items": np.array(items, object),
        "history_behaviours": np.array(behaviours, object),
        "history_times": np.array(times, np.int64).reshape(1, -1),
        "history_channel": np.array([["c1"] * len(interactions)], object),
    }
    return call(exported.signatures["rank"], request | changes)["probabilities"]


def test_rank_sees_the_history_it_is_given_up_to_its_time(exported: Exported) -> None:
    history = [("i4", "5", END - 50), ("i5", "2", END - 20), ("i6", "5", END - 1)]
    answer = rank(exported, history)
    np.testing.assert_array_equal(rank(exported, history[::-1]), answer)  # in whatever order
    unseen = [("i7", "5", END), ("i8", "5", END + 9), ("", "5", END - 30)]
    np.testing.assert_array_equal(rank(exported, [*unseen, *history]), answer)
    assert np.abs(rank(exported, history[:2]) - answer).max() > 1e-6  # a click from a second ago counts
    assert np.abs(rank(exported, [*history[:2], ("i6", "2", END - 1)]) - answer).max() > 1e-6
    older = [(f"i{item}", "2", END - 900 + item) for item in range(9)]
    newest = [(f"i{item}", "5", END - 60 + item) for item in range(6)]  # L of them
    np.testing.assert_array_equal(rank(exported, [*older, *newest]), rank(exported, newest))
    nobody = rank(exported, [], user=["nobody"])
    assert np.isfinite(nobody).all() and np.abs(rank(exported, history, user=["nobody"]) - nobody).max() > 1e-6


def test_rank_takes_the_user_s_attributes_from_the_request_if_it_names_them(exported: Exported) -> None:
    history = [("i4", "5", END - 50)]
    answer = rank(exported, history)
    np.testing.assert_array_equal(rank(exported, history, age=["a1"]), answer)  # what the log has
    assert np.abs(rank(exported, history, age=["a2"]) - answer).max() > 1e-6
    nobody = rank(exported, history, user=["nobody"])
    assert np.abs(rank(exported, history, user=["nobody"], age=["a2"]) - nobody).max() > 1e-6


def test_batches_of_padded_slates_answer_as_single_ones(exported: Exported) -> None:
    requests = [("u1", ["i1", "i2", "i3"]), ("u2", ["i5"]), ("nobody", ["i9", "i1"])]
    padded = [[*items, *[""] * (3 - len(items))] for _, items in requests]
    together = ask(
        exported,
        user=[user for user, _ in requests],
        candidates=padded,
        time=np.full(3, END),
        channel=["c1"] * 3,
    )
    for place, (user, items) in enumerate(requests):
        single = ask(exported, user=[user], candidates=[items], time=np.array([END]))
        for name, values in single.items():
            np.testing.assert_allclose(
                together[name][place, : len(items)], values[0], atol=1e-6
            ) if values.dtype == np.float32 else np.testing.assert_array_equal(
                together[name][place, : len(items)], values[0]
            )


def test_the_graph_holds_no_large_constants_and_names_its_methods(exported: Exported) -> None:
    model = saved_model_pb2.SavedModel.FromString((exported.folder / "saved_model.pb").read_bytes())
    (graph,) = model.meta_graphs
    nodes = [
        *graph.graph_def.node,
        *(node for function in graph.graph_def.library.function for node in function.node_def),
    ]
    sizes = [node.attr["value"].tensor.ByteSize() for node in nodes if node.op == "Const"]
    assert len(sizes) > 100 and max(sizes) < 1 << 14  # the names of the variables' files
    methods = {name: signature.method_name for name, signature in graph.signature_def.items()}
    assert methods["classify"] == "tensorflow/serving/classify" and methods["regress"] == "tensorflow/serving/regress"
    assert methods["rank"] == methods["rank_known_user"] == "tensorflow/serving/predict"
    for signature in graph.signature_def.values():
        for tensor in [*signature.inputs.values(), *signature.outputs.values()]:
            assert tensor.name.startswith(("__saved_model", "NoOp")) or tensor.tensor_shape.dim[0].size == -1


@pytest.mark.slow
def test_verify_notices_an_altered_weight(exported: Exported, tmp_path: Path) -> None:
    altered = tmp_path / "altered"
    shutil.copytree(exported.folder, altered)
    prefix = str(altered / "variables" / "variables")
    reader = tf.train.load_checkpoint(prefix)
    tensors = {name: reader.get_tensor(name) for name in reader.get_variable_to_dtype_map()}
    single = [name for name, value in tensors.items() if np.shape(value) == (1,) and value.dtype == np.float32]
    assert single  # the predictor's last bias among them
    tensors |= {name: tensors[name] + np.float32(0.02) for name in single}
    shutil.rmtree(altered / "variables")
    (altered / "variables").mkdir()
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=[tf.constant(v) for v in tensors.values()],
    )
    with pytest.raises(
        ValueError, match=r"must answer as the one in memory does.*Received: signature .* differs by [1-9]\.\d+e-0[23]"
    ):
        verify(exported.workspace, altered)
    (data,) = (altered / "variables").glob("*.data-*")
    data.write_bytes(data.read_bytes()[:-100])
    with pytest.raises(ValueError, match="must load and run in a fresh process"):
        verify(exported.workspace, altered)


@pytest.mark.slow
def test_versions_count_up_and_appear_whole(tiny: Any, exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    models_dir = exported.workspace.models_dir
    assert exported.folder == models_dir / "1"
    assert saved_model.run(exported.workspace) == exported.folder  # up to date

    def interrupt(workspace: Workspace, folder: Path) -> float:
        assert (folder / "saved_model.pb").is_file() and not folder.name.isdigit()
        raise KeyboardInterrupt

    monkeypatch.setattr(saved_model, "verify", interrupt)
    with pytest.raises(KeyboardInterrupt):
        saved_model.run(exported.workspace, force=True)
    assert saved_model.list_versions(models_dir) == [1]
    monkeypatch.setattr(saved_model, "verify", lambda workspace, folder: 0.0)
    assert saved_model.run(exported.workspace, force=True) == models_dir / "2"
    assert sorted(path.name for path in models_dir.iterdir()) == ["1", "2"]
    assert saved_model.run(exported.workspace) == models_dir / "2"


def test_a_stale_run_is_refused(tiny: Any, exported: Exported) -> None:
    stale = Workspace(tiny.load(*tiny.overrides(), "predictor.hidden_dims=[4]"))
    with pytest.raises(
        ValueError, match=r"artefact of stage 'fit' is stale.*Run `python -m tf_lift.train --stages fit`"
    ):
        saved_model.run(stale)
    absent = Workspace(tiny.load(*tiny.overrides(), "run=other"))
    with pytest.raises(ValueError, match=r"artefact of stage 'fit' must be there"):
        saved_model.run(absent)


def test_line_breaks_in_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must not hold line breaks. Received: 'a\\nb' in field 'user'"):
        IdTable(["x", "a\nb"], "user", tmp_path)


def test_states_of_every_position_are_served_where_any_may_be_read(tiny: Any) -> None:
    """In a static pool the posting lists name few rows; neighbours of a situation are not of them."""
    dataset = tiny.dataset(*tiny.rim, "retrieval.num_neighbours=1", "retrieval.context_length=2")
    states = np.random.default_rng(0).normal(size=(dataset.log.num_positions, 8)).astype(np.float16)
    store = build_datastore(dataset.log, states, 2)
    assert served_datastore(dataset, store).states.shape[0] < len(states)
    situation = dataclasses.replace(dataset.config.situation, overlap=True, encoded_neighbours=2)
    encoded = dataclasses.replace(dataset, config=dataclasses.replace(dataset.config, situation=situation))
    np.testing.assert_array_equal(served_datastore(encoded, store).states, states)
