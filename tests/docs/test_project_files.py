"""The files for those who cite, report and contribute."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / ".github" / "ISSUE_TEMPLATE"


def test_the_citation_cites_the_paper() -> None:
    cited: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= cited.keys()
    assert cited["cff-version"] == "1.2.0"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    paper = cited["preferred-citation"]
    assert {"type", "title", "authors", "year", "conference"} <= paper.keys()
    named = [f"{author['given-names']} {author['family-names']}" for author in paper["authors"]]
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"{', '.join(named[:-1])} and {named[-1]}: *{paper['title']}*, ECCV 2024" in readme
    assert (paper["type"], paper["year"]) == ("conference-paper", 2024)


def test_the_citation_is_as_its_first_page(shared: Path) -> None:
    first = (shared / "paper.txt").read_text(encoding="utf-8")[:2000]
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    assert f"# {paper['title']}\n" in first
    for author in paper["authors"]:
        assert f"{author['given-names']} {author['family-names']}<sup>" in first
        assert author["affiliation"] in first


@pytest.mark.parametrize("name", ["bug_report.yml", "feature_request.yml"])
def test_issue_forms_can_be_filled_in(name: str) -> None:
    form = yaml.safe_load((TEMPLATES / name).read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids))
    for field in form["body"]:
        assert field["type"] in {"textarea", "input", "dropdown", "checkboxes"}
        assert field["attributes"]["label"]
        if field["type"] == "checkboxes":
            assert all(option["label"] for option in field["attributes"]["options"])
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_other_templates() -> None:
    assert yaml.safe_load((TEMPLATES / "config.yml").read_text()) == {"blank_issues_enabled": True}
    text = (ROOT / ".github" / "pull_request_template.md").read_text(encoding="utf-8")
    assert text.count("- [ ]") >= 3


def test_commands_for_contributors_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for file in ("CONTRIBUTING.md", ".github/pull_request_template.md"):
        text = (ROOT / file).read_text(encoding="utf-8")
        named = re.findall(r"`make ([a-z-]+)", text)
        assert named
        assert set(named) <= set(targets)
        for path in re.findall(r"[`(]((?:src|conf|tests|docs)/[\w/.-]+)[`)]", text):
            assert (ROOT / path).exists() or "NAME" in path, path
