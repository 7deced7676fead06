"""What a computation took, and what is said of it where: measured, modelled, or not known."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml
from jsonschema import Draft202012Validator

from modhub import energy, push
from modhub.artifact import artifact_files, write_artifact
from modhub.energy import CORE_POWER, Emissions, EnergyUse, Meter, NamedFactor, processor_name
from modhub.errors import ConflictError, DataError, ManifestError
from modhub.manifest import RepositoryManifest
from modhub.schemas import schema
from tests.support.pico import pico_set

MODELLED = EnergyUse(
    seconds=12.34, cores=1.9, processor="EPYC", kwh=7.8e-5, power_model="12 W for each busy core: a paper"
)
GRID = Emissions(grams=0.0296, grid=NamedFactor(380.0, "Germany 2024"))
WHOLE = Emissions(
    grams=0.0382, grid=NamedFactor(380.0, "Germany 2024"), embodied=NamedFactor(2.5, "its maker")
)


@pytest.fixture(autouse=True)
def no_factors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("GRID", "EMBODIED", "CORE_POWER"):
        monkeypatch.delenv(f"MODHUB_{name}", raising=False)
    monkeypatch.setattr(energy, "RAPL", tmp_path / "no-counters")


def busy() -> Meter:
    with Meter() as meter:
        sum(range(2_000_000))
    return meter


def test_energy_is_cpu_time_times_a_stated_power() -> None:
    meter = busy()
    use = meter.use()
    assert 0 < meter.cpu_seconds <= meter.seconds * 1.5
    assert use.kwh == pytest.approx(meter.cpu_seconds * CORE_POWER.value / 3.6e6, rel=1e-3)
    assert use.cores == pytest.approx(meter.cpu_seconds / meter.seconds, rel=1e-2)
    assert use.processor == processor_name() != ""
    assert (use.power_model, use.emissions) == ("12 W for each busy core: Green Algorithms, any CPU", None)


def test_processes_that_share_the_work_are_added() -> None:
    meter = busy()
    assert meter.use(cpu_seconds=3600.0).kwh == pytest.approx(CORE_POWER.value / 1000)


def test_what_is_not_metered_is_not_known() -> None:
    use = busy().use(device="cuda")
    assert (use.kwh, use.power_model, use.emissions) == (None, "none: cuda is not metered", None)
    assert "energy unknown (none: cuda is not metered)" in str(use)


def test_factors_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODHUB_GRID", "380: Germany 2024")
    monkeypatch.setenv("MODHUB_CORE_POWER", "1000:a kettle: 1 kW")
    use = busy().use(cpu_seconds=3600.0)
    assert (use.kwh, use.power_model) == (1.0, "1000 W for each busy core: a kettle: 1 kW")
    assert use.emissions == Emissions(grams=380.0, grid=NamedFactor(380.0, "Germany 2024"))
    monkeypatch.setenv("MODHUB_EMBODIED", "7200:its maker")
    meter = busy()
    made = meter.use(cpu_seconds=3600.0).emissions
    assert made is not None
    # (E·I + M) / R for one run: an hour's 7,200 g are 2 g a second.
    assert made.grams == pytest.approx(380 + 2 * meter.seconds, rel=1e-3)
    assert busy().use(device="cuda").emissions is None


@pytest.mark.parametrize(
    "text", ["380", "380:", ":Germany", "lots:Germany", "-1:Germany", "nan:x", "inf:x", "1:\x1b"]
)
def test_factors_without_number_or_source_are_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("MODHUB_GRID", text)
    with pytest.raises(DataError) as caught:
        Meter()
    assert str(caught.value) == (
        f"MODHUB_GRID is '{text}'; it should be a number of gCO2e/kWh, a colon and its source. "
        "For instance: export MODHUB_GRID='380:Germany 2024'. Or unset it."
    )


@pytest.mark.parametrize(
    ("readable", "works"),
    [(True, True), (True, False), (False, True)],
    ids=["measured", "broken", "no counter"],
)
def test_a_machine_with_counters_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, readable: bool, works: bool
) -> None:
    """With a stand-in for codecarbon, which needs counters that a virtual machine does not have."""
    counter = tmp_path / "rapl" / "intel-rapl:0" / "energy_uj"
    counter.parent.mkdir(parents=True)
    counter.write_text("1\n")
    monkeypatch.setattr(energy, "RAPL", tmp_path / "rapl")
    package = tmp_path / "site"
    (package / "codecarbon-3.3.2.dist-info").mkdir(parents=True)
    (package / "codecarbon-3.3.2.dist-info" / "METADATA").write_text("Name: codecarbon\nVersion: 3.3.2\n")
    monkeypatch.syspath_prepend(package)
    told: list[str] = []

    class OfflineEmissionsTracker:
        def __init__(self, **options: object) -> None:
            told.append(f"file {options['save_to_file']}")

        def start(self) -> None:
            told.append("start")

        def stop(self) -> None:
            told.append("stop")
            if works:
                self.final_emissions_data = SimpleNamespace(energy_consumed=0.25)

    codecarbon = ModuleType("codecarbon")
    codecarbon.__spec__ = SimpleNamespace()  # type: ignore[assignment]
    codecarbon.OfflineEmissionsTracker = OfflineEmissionsTracker  # type: ignore[attr-defined]
    cpu = ModuleType("codecarbon.core.cpu")
    cpu.is_rapl_available = lambda: readable  # type: ignore[attr-defined]
    for module in (codecarbon, ModuleType("codecarbon.core"), cpu):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    use = busy().use(device="cuda")
    assert told == (["file False", "start", "stop"] if readable else [])
    if readable and works:
        assert (use.kwh, use.power_model) == (0.25, "codecarbon 3.3.2, the whole machine")
    else:
        assert (use.kwh, use.power_model) == (None, "none: cuda is not metered")


def test_an_estimate_of_codecarbon_is_not_taken_for_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With codecarbon itself: where it reads no counter it would count an assumed power of its own."""
    cpu = pytest.importorskip("codecarbon.core.cpu")
    if cpu.is_rapl_available():
        assert busy().use().power_model.startswith("codecarbon ")
        return
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("1\n")
    monkeypatch.setattr(energy, "RAPL", tmp_path)
    assert busy().use().power_model == "12 W for each busy core: Green Algorithms, any CPU"


@pytest.mark.parametrize(
    ("emissions", "line"),
    [
        (None, ""),
        (GRID, ", 0.0296 gCO2e (Germany 2024, hardware not counted)"),
        (WHOLE, ", 0.0382 gCO2e (Germany 2024)"),
    ],
)
def test_the_manifest_says_it_and_is_read_again(emissions: Emissions | None, line: str) -> None:
    use = replace(MODELLED, emissions=emissions)
    assert str(use) == f"12.3 s on 1.9 cores, 0.078 Wh (12 W for each busy core: a paper){line}"
    plain, files = artifact_files(pico_set()), artifact_files(pico_set().made_with(use))
    document = json.loads(files["modhub.json"])
    Draft202012Validator(schema("repository")).validate(document)
    manifest = RepositoryManifest.from_bytes(files["modhub.json"])
    assert (manifest.energy, manifest.to_bytes()) == (use, files["modhub.json"])
    # It says so in this one key; modules and weights are the same bytes.
    assert document.pop("energy") == use.to_dict()
    assert document == json.loads(plain["modhub.json"])
    changed = {path for path, content in files.items() if content != plain[path]}
    assert changed == {"modhub.json"} | ({"README.md"} if emissions else set())
    front = yaml.safe_load(files["README.md"].split(b"---\n")[1])
    Draft202012Validator(schema("card")).validate(front)
    assert front.get("co2_eq_emissions") == (
        None
        if emissions is None
        else {
            "emissions": emissions.grams,
            "source": "modhub; 12 W for each busy core: a paper; 380 gCO2e/kWh",
            "training_type": "decomposition of a trained network",
            "geographical_location": "Germany 2024",
            "hardware_used": "EPYC",
        }
    )


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seconds", -1, "'seconds' in 'energy' in modhub.json is -1; it should be 0 or more."),
        ("kwh", "much", "'kwh' in 'energy' in modhub.json should be a number, not 'much'."),
        (
            "emissions",
            {"grams": 1, "grams_per_kwh": 1},
            "'emissions' in 'energy' in modhub.json has no 'grid'.",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(key: str, value: object, said: str) -> None:
    document = json.loads(artifact_files(pico_set().made_with(MODELLED))["modhub.json"])
    document["energy"][key] = value
    with pytest.raises(ManifestError) as caught:
        RepositoryManifest.from_bytes(json.dumps(document).encode())
    assert caught.value.message == said
    assert not Draft202012Validator(schema("repository")).is_valid(document)


def test_the_same_modules_are_the_same_release(tmp_path: Path) -> None:
    hub = str(tmp_path / "hub")
    first = write_artifact(tmp_path / "first", pico_set().made_with(MODELLED))
    again = write_artifact(tmp_path / "again", pico_set().made_with(replace(MODELLED, seconds=99.0)))
    other = write_artifact(tmp_path / "other", pico_set(("cat", "dog")).made_with(MODELLED))
    done = push(first, "lab/pico", version="1.0.0", hub=hub)
    assert not done.existed
    same = push(again, "lab/pico", version="1.0.0", hub=hub)
    assert (same.existed, same.commit, same.bytes) == (True, done.commit, 0)
    with pytest.raises(ConflictError, match="exists with other files"):
        push(other, "lab/pico", version="1.0.0", hub=hub)
