"""The model card and the lineage: every figure is in its place, nothing unpinned gets through."""

import json
from dataclasses import replace
from hashlib import md5, sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.export.conftest import experiment, exporting, reports
from tuneline.config.schema import CombineConfig, EndpointConfig, HubDatasetConfig
from tuneline.errors import ConfigError, DataError
from tuneline.export.card import card
from tuneline.export.commit import Commit
from tuneline.export.provenance import check_pinned, provenance
from tuneline.serving.integrity import record_sha256

REVISION = "0123456789abcdef0123456789abcdef01234567"


def front_matter(text: str) -> dict[str, Any]:
    _, matter, _ = text.split("---\n", 2)
    fields: dict[str, Any] = yaml.safe_load(matter)
    return fields


def test_card_has_the_hubs_front_matter() -> None:
    fields = front_matter(card(experiment(), reports()))
    assert fields["license"] == "apache-2.0"
    assert fields["base_model"] == "sqlama"
    assert {"gguf", "lora", "q8_0"} <= set(fields["tags"])
    (result,) = fields["model-index"][0]["results"]
    assert result["metrics"] == [{"name": "execution accuracy", "type": "execution_accuracy", "value": 0.85}]


def test_card_speaks_of_the_adapter_alone_only_when_it_is_shipped() -> None:
    it, own = experiment(), {"adapter_size_mib": 0.4, "kl_mean_nats": 2e-6, "top1_agreement": 1.0}
    figures = {**reports().verified["f16"], **own}
    with_lora = exporting(it, lora_base="f16")
    text = card(with_lora, replace(reports(), lora=figures))
    assert "`lora/` holds the adapter alone (0.4 MiB) and the base in f16" in text
    assert "KL 2e-06 nats" in text
    assert "tuneline serve . --lora" in text
    assert "| adapter -> lora_on_f16 | " in text
    assert "lora/" not in card(it, reports())


def test_card_tells_clients_the_system_prompt_and_how_to_run_what_is_shipped() -> None:
    it = experiment()
    data = it.data.model_copy(update={"system_prompt": 'Be "brief".'})
    text = card(exporting(it.model_copy(update={"data": data}), vllm=True), reports())
    assert r'Clients send this system prompt, as in training: "Be \"brief\"."' in text
    assert "\nvllm serve vllm " in text
    plain = card(exporting(it, vllm=False), reports())
    assert "system prompt, as" not in plain
    assert "vllm serve" not in plain


def test_card_says_what_was_combined_and_how() -> None:
    it = experiment()
    sources = [{"path": "models/phase/sft", "weight": 0.5}, {"path": "models/sources/other", "weight": 0.25}]
    combine = CombineConfig.model_validate(
        {"family": "adapter", "combination_type": "cat", "sources": sources, "density": None}
        | {"majority_sign_method": None, "svd_rank": None}
    )
    combined = it.model_copy(update={"merge": it.merge.model_copy(update={"combine": combine})})
    text = card(combined, reports())
    assert "combined by cat of `models/phase/sft` (0.5), `models/sources/other` (0.25)" in text
    assert "combined by" not in card(it, reports())


def test_card_counts_the_rows_of_a_teacher_and_names_it() -> None:
    it = experiment()
    endpoint = EndpointConfig(
        base_url="http://127.0.0.1:8080/v1", model="teacher-7b", api_key_env=None, limit_parameter="max_tokens",
        sends_seed=True, timeout_s=60.0, max_retries=3, concurrency=4, max_total_tokens=1000,
    )  # fmt: skip
    taught = {"augment": {"n_kept": 90, "n_rejected_by_empty": 7}, "clean_augmented": {"n_rejected_by_refusals": 3}}
    with_teacher = it.model_copy(update={"augment": it.augment.model_copy(update={"endpoint": endpoint})})
    text = card(with_teacher, replace(reports(), taught=taught))
    assert "90 rows written by the teacher `teacher-7b` joined them" in text
    assert "| augment | empty | 7 |" in text
    assert "| clean_augmented | refusals | 3 |" in text
    assert with_teacher.settings()["augment"]["endpoint"]["model"] == "teacher-7b"
    assert "teacher" not in card(it, reports())


def test_card_of_a_hub_model_names_repository_and_commit() -> None:
    it = experiment(name_or_path="Qwen/Qwen3-8B", revision=REVISION, tracked_path="conf/model/qwen3_8b.yaml")
    text = card(it, reports())
    assert front_matter(text)["base_model"] == "Qwen/Qwen3-8B"
    assert REVISION in text


@pytest.mark.parametrize(
    "figure",
    [
        "| base | 3.0 % (1.5 to 5.0) | 2.0 % | 9.500 |",
        "| tuned | 86.0 % (83.0 to 88.5) | 60.0 % | 1.200 |",
        "| this file (q8_0) | 85.0 % (82.0 to 87.6) | 59.0 % | 1.0123 x merged |",
        "both on the same 64 examples (2000 tokens of answers)",
        "| training -> adapter | - | - | - | - | - | - | 86.0% (83.0% to 88.5%) | - | - |  |",
        "| adapter -> merged | 15.0 | - | 3e-12 | 6e-11 | 100.00% | - | 86.0% (83.0% to 88.5%) "
        "| 0.00% (1) | 98.0% |  |",
        "| merged -> q8_0 | 8.7 | 8.50 | 7e-05 | 0.0012 | 99.50% | 1.0123 ± 0.0021 | 85.0% (82.0% to 87.6%) "
        "| 1.00% (0.25) | 97.5% | within |",
        "| merged -> f16 | 16.4 | 16.01 | 1.6e-07 | 1.1e-06 | 100.00% | 1.0123 ± 0.0021 | 86.0% (82.0% to 87.6%) "
        "| 0.00% (0.25) | 97.5% | within |",
        "Every link is within its budget",
        "6 kinds of conversation and every held-out one, as llama.cpp renders them, and 6 kinds as the Modelfile does",
        "Tuned and measured on text_to_sql only (languages: en)",
        "15.0 % of its answers to held-out examples are wrong (execution accuracy).",
        "2.5 % of its answers did not end by themselves",
        "Its chat template cannot show 2 of 8 kinds of conversation",
        "5100 rows read, 4820 left after cleaning; 4000 for training, 200 for validation, 600 for the test",
        "| ingest | format | 7 |",
        "| clean | near duplicates | 90 |",
        "Contamination: training rows were compared with the held-out ones by equal prompts and answers",
        "; 20 were left out",
        "Licence of the data: apache-2.0",
        "tuneline serve .",
        "lora (rank 16, alpha 32)",
        "2.1e-06 of the largest logit",
        "llama-server -m sqlama-text_to_sql-lora-q8_0.gguf --jinja -c 512 --temp 0",
        "ollama create sqlama-text_to_sql-lora -f Modelfile",
        "| train_loss_nats | 0.15 |",
    ],
)
def test_card_quotes_the_reports(figure: str) -> None:
    assert figure in card(experiment(), reports())


def test_card_says_which_link_is_outside_its_budget_and_why_that_usually_is() -> None:
    figures = reports()
    coarse = {**figures.verified["q4_k_m"], "kl_mean_nats": 3.0, "n_fallback_tensors": 4}
    text = card(experiment(), replace(figures, verified={**figures.verified, "q4_k_m": coarse}))
    assert "- merged -> q4_k_m: kl_mean_nats is 3, kl_mean_nats allows" in text
    assert "the type is too coarse for so small a model" in text
    assert "matrices are of another type" not in text  # those of the file that is shipped count


def test_card_names_what_is_not_of_the_type_it_says() -> None:
    figures = reports()
    mixed = {**figures.verified["q8_0"], "n_fallback_tensors": 4, "n_templates_refused": 0}
    text = card(experiment(), replace(figures, verified={**figures.verified, "q8_0": mixed}))
    assert "4 matrices are of another type than q8_0" in text
    assert "kinds of conversation that were tried" not in text


def test_card_names_the_context_in_which_llama_cpp_makes_another_model_of_it() -> None:
    assert "do not raise it beyond 4096" in card(experiment(max_served_context=4096), reports())
    assert "do not raise it" not in card(experiment(), reports())


def test_card_does_not_set_perplexities_of_different_rows_side_by_side() -> None:
    assert "1.31" not in card(experiment(), reports())  # of the file, on 64 rows; base and tuned have 600


def test_card_says_what_changing_the_base_after_qlora_cost() -> None:
    figures = reports()
    found = {"four_bit_kl_mean_nats": 0.0123, "four_bit_kl_p99_nats": 0.2, "four_bit_top1_agreement": 0.9712}
    text = card(experiment(), replace(figures, merge={**figures.merge, **found}))
    assert "in 4 bits (QLoRA) and merged into the unquantised one" in text
    assert "KL 0.012 nats in the mean, 0.2 at the 99th percentile, same top token 97.1%" in text
    assert "QLoRA" not in card(experiment(), figures)


def test_card_of_a_task_without_execution_uses_exact_match() -> None:
    figures = reports()
    verified = {name: {**row, "exact_match_drop": 0.005} for name, row in figures.verified.items()}
    for report in (figures.evaluated, figures.merged, *verified.values()):
        for key in [key for key in report if "execution" in key]:
            del report[key]  # type: ignore[attr-defined]  # a dict, built for this test
    text = card(experiment(), replace(figures, verified=verified))
    assert "execution" not in text
    assert "| tuned | 60.0 % (57.0 to 63.0) |" in text


def test_local_base_and_data_are_pinned_by_their_hashes() -> None:
    check_pinned(experiment().model, experiment().data)


def test_everything_unpinned_is_named_at_once() -> None:
    it = experiment(name_or_path="Qwen/Qwen3-8B", tracked_path="conf/model/qwen3_8b.yaml", licence="unknown")
    hub = HubDatasetConfig.model_construct(repo="a/b", revision="main", config=None, split="train")
    source = it.data.sources[0].model_copy(update={"path": None, "hub": hub})
    data = it.data.model_copy(update={"sources": (source,)})
    with pytest.raises(ConfigError) as caught:
        check_pinned(it.model, data)
    message = str(caught.value)
    for part in ("model.revision: 'None'", "tuneline pin", "model.licence: 'unknown'", "hub.revision 'main' of 'pool'"):
        assert part in message


def test_the_hubs_own_parser_accepts_the_card() -> None:
    from huggingface_hub import ModelCard

    parsed = ModelCard(card(experiment(), reports())).data.to_dict()  # type: ignore[no-untyped-call]  # the hub leaves it untyped
    assert (parsed["language"], parsed["license"]) == (["en"], "apache-2.0")
    (result,) = parsed["model-index"][0]["results"]
    (metric,) = result["metrics"]
    assert (metric["type"], metric["value"]) == ("execution_accuracy", 0.85)


def test_a_rule_that_rejected_nothing_has_no_row() -> None:
    assert "| ingest | reader |" not in card(experiment(), reports())


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "data/sub").mkdir(parents=True)
    (tmp_path / "data/sub/train.jsonl").write_bytes(b"a\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/m.gguf").write_bytes(b"GGUF")
    return tmp_path / "data", tmp_path / "out"


def lineage(folders: tuple[Path, Path], settings: Any) -> str:
    data, out = folders
    commit = experiment().commit
    return provenance(settings, commit, {"data": data}, out, {"base": "mit"}, {"merge": {"kl_mean_nats": 0.5}})


def test_provenance_hashes_inputs_and_outputs_and_names_no_folder(folders: tuple[Path, Path], tmp_path: Path) -> None:
    text = lineage(folders, experiment().settings())
    record = json.loads(text)
    entry = {"md5": md5(b"a\n").hexdigest(), "sha256": sha256(b"a\n").hexdigest()}
    assert record["inputs"]["data"] == {"sub/train.jsonl": entry}
    packaged = {"md5": md5(b"GGUF").hexdigest(), "sha256": sha256(b"GGUF").hexdigest(), "n_bytes": 4}
    assert record["files"] == {"m.gguf": packaged}
    assert record["settings"]["seed"] == 42
    assert record["settings"]["hardware"]["name"]
    assert record["licences"] == {"base": "mit"}
    assert record["git"] == {"commit": "c0ffee" + 34 * "0", "dirty": False}
    assert "commit" not in record["settings"]
    assert set(record["libraries_at_packaging"]) >= {"torch", "transformers", "peft", "llama-cpp-python"}
    assert record["llama_cpp_commit"] is None or len(record["llama_cpp_commit"]) == 40
    assert record["record_sha256"] == record_sha256(record)
    assert str(tmp_path) not in text
    assert lineage(folders, experiment().settings()) == text


def test_card_names_the_commit_and_what_was_not_in_it() -> None:
    it = experiment()
    sha1 = it.commit.sha1
    assert f"\n## Lineage\n\nMade of the code, configuration and data of commit `{sha1}`.\n" in card(it, reports())
    changed = card(it.model_copy(update={"commit": Commit(sha1, dirty=True)}), reports())
    assert f"commit `{sha1}`, and of changes that were not committed.\n" in changed
    unknown = card(it.model_copy(update={"commit": Commit(None, None, "no git repository")}), reports())
    assert "Of which commit it was made is not known: no git repository.\n" in unknown


def test_settings_digest_changes_with_any_setting(folders: tuple[Path, Path]) -> None:
    digests = {
        json.loads(lineage(folders, it.settings()))["settings_sha256"]
        for it in (experiment(), experiment(licence="mit"), experiment())
    }
    assert len(digests) == 2


def test_empty_input_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="nothing there"):
        lineage((tmp_path / "empty", folders[1]), {})
