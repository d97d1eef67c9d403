"""The URL of a run's tables as text: what it may hold, and that nobody is shown its keys."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import UserError
from orchestrator.recipe import Recipe, load_recipe, signature
from orchestrator.results_url import check_results_url, filled_in, shown_url, without_keys

SECRETS = st.text(string.ascii_letters + string.digits + "/+=@:", min_size=6).map(lambda text: f"s3cr3t{text}")


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/netsuke/{run}/results",
        "s3://bucket/{run}-{run_id}?region=eu-central-1&endpoint_override=localhost:9000&scheme=http",
        "gs://anonymous@bucket/results",
        "abfs://container@account.dfs.core.windows.net/results",
        "hdfs://host:8020/user@home/results",
        "file:///tmp/results",
        "memory://results",
    ],
)
def test_a_url_is_kept_as_it_was_written(url):
    assert check_results_url(url) == url == without_keys(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("bucket/results", "found 'bucket/results', expected a URL such as s3://bucket/netsuke/{run}/results"),
        ("s3://bucket/my results", "expected a URL"),
        ("nowhere://x/results", "found a URL of the scheme 'nowhere', expected one that pyarrow or fsspec knows"),
        ("s3://bucket/{name}", "found the placeholder {name}, expected {run} or {run_id}"),
        ("s3://bucket/{run_id:>20}", "found the placeholder {run_id:>20}, expected {run} or {run_id}"),
        ("s3://bucket/{run", "found a single brace"),
        ("s3://key:word@bucket/results", "found a URL that holds keys ('s3://***@bucket/results')"),
        ("s3://bucket/results?secret_key=word", "found a URL that holds keys ('s3://bucket/results?secret_key=***')"),
    ],
)
def test_a_url_that_cannot_be_is_one_line(url, expected):
    with pytest.raises(ValueError) as caught:
        check_results_url(url)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "word" not in str(caught.value)


@given(user=st.text(string.ascii_uppercase, min_size=1), secret=SECRETS, option=st.sampled_from(["sas_token", "KEY"]))
def test_no_secret_is_repeated(user, secret, option):
    for url in (f"s3://{user}:{secret}@bucket/{{run}}", f"abfs://bucket/results?{option}={secret}&region=here"):
        with pytest.raises(ValueError, match="holds keys") as caught:
            check_results_url(url)
        assert "s3cr3t" not in str(caught.value)
        assert "s3cr3t" not in without_keys(f"--set results.url={url}")
    assert shown_url(f"s3://{user}:{secret}@bucket/results/?scheme=http") == "s3://bucket/results"


def test_placeholders_are_filled_in():
    assert filled_in("s3://b/{run}/{run_id}/{run}", "quick", "quick-1a") == "s3://b/quick/quick-1a/quick"
    assert filled_in("s3://b/{run_id}", "my run", "quick-1a") == "s3://b/quick-1a"
    with pytest.raises(ValueError, match="a run folder called 'my run', expected one of letters"):
        filled_in("s3://b/{run}", "my run", "quick-1a")


def test_a_recipe_says_where_the_url_is_wrong(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("seed: 2\nresults:\n  url: s3://bucket/{seed}\n")
    with pytest.raises(UserError, match=r"recipe.yaml:3: results.url: found the placeholder \{seed\}"):
        load_recipe(str(file))
    with pytest.raises(
        UserError, match=r"results.url=s3://\*\*\*@b: results.url: found a URL that holds keys"
    ) as caught:
        load_recipe("quickstart", ["results.url=s3://key:word@b"])
    assert "word" not in str(caught.value)


def test_a_place_for_tables_does_not_change_what_a_run_is():
    recipes = [load_recipe("quickstart", changes) for changes in ((), ["results.url=s3://bucket/{run}"])]
    assert recipes[1].results.url == "s3://bucket/{run}"
    assert signature(recipes[0]) == signature(recipes[1])
    assert Recipe(name="any").results.url is None
