"""``rexstream check`` and the days that certificates have left."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import yaml
from certificates import Authority
from click.testing import CliRunner

from consumer.cli import cli

if TYPE_CHECKING:
    from pathlib import Path


_CLEAN = {name: None for name in os.environ if name.startswith("REXSTREAM_")}


def test_days_left_of_certificates_are_shown(tmp_path: Path) -> None:
    """Those with few are warnings; files without certificates have no line."""
    files = {"far": Authority("far", days=300).pem, "soon": Authority("soon", days=3).pem + Authority("x", days=90).pem}
    for name, content in (*files.items(), ("password", b"x")):
        (tmp_path / name).write_bytes(content)
    section = {"protocol": "sasl_ssl", "mechanism": "PLAIN", "username": "u", "ca_file": str(tmp_path / "far")}
    kafka = {"security": {**section, "password_file": str(tmp_path / "password")}}
    path = tmp_path / "worker.yaml"
    path.write_text(yaml.safe_dump({"kafka": kafka, "model": {"tls": {"ca_file": str(tmp_path / "soon")}}}))
    result = CliRunner().invoke(cli, ["check", "--json", "--config", str(path)], env=_CLEAN)
    found = {finding["subject"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert re.fullmatch(r"expires in (299|300) days", found["kafka.security.ca_file"]["detail"])
    assert found["model.tls.ca_file"]["status"] == "warn"
    assert re.search(r"expires in (2|3)\.\d days; put a new one", found["model.tls.ca_file"]["detail"])
    assert "kafka.security.password_file" not in found


def test_the_names_of_the_http_port_are_shown() -> None:
    """Whoever scrapes a Service's name learns here that it must be listed."""
    for flags, shown in (
        ([], None),
        (["--set", "observability.http=0.0.0.0:9464"], "0.0.0.0:9464, for requests to addresses, localhost; others"),
        (["--set", "observability.http_hosts=[a.svc]"], "addresses, localhost, a.svc; others"),
        (["--set", "observability.http="], None),
    ):
        result = CliRunner().invoke(cli, ["check", "--json", *flags], env=_CLEAN)
        found = {finding["subject"]: finding["detail"] for finding in json.loads(result.stdout)["findings"]}
        assert (shown is None) == ("observability.http" not in found)
        assert shown is None or shown in found["observability.http"]
