"""TLS to the model server, with real certificates: who is let in, and what is said when someone is not."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from certificates import Authority
from click.testing import CliRunner
from stub_server import write_bundle

from consumer.cli import cli
from consumer.cli.dependencies import start_findings
from consumer.cli.model_findings import model_findings
from consumer.config.credential_files import CredentialFileError
from consumer.config.loading import load_config
from consumer.config.problems import ConfigError
from consumer.config.tree import Config, ModelConfig, ModelTlsConfig
from consumer.serving.client import TfServingClient
from consumer.serving.descriptors import GET_MODEL_STATUS
from consumer.serving.errors import classify
from consumer.serving.protocol import Failure, ServingError
from consumer.worker.start_checks import StartChecks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.serving.bundle import Bundle


class Yard:
    """Certificates in files, and a TLS server for each way to set one up; every one has the same model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._servers: list[grpc.Server] = []
        ours, theirs = Authority("Ours"), Authority("Theirs")
        self.ca, self.foreign_ca = self.file("ca.pem", ours.pem), self.file("foreign.pem", theirs.pem)
        server, elsewhere = ours.issue("server"), ours.issue("elsewhere", ("model.internal",))
        client, stranger = ours.issue("client", ()), theirs.issue("stranger", ("stranger",))
        self.client = self.file("client.pem", client[0]), self.file("client.key", client[1])
        self.stranger = self.file("stranger.pem", stranger[0]), self.file("stranger.key", stranger[1])
        self.plain = self._serve(None)
        self.tls = self._serve(grpc.ssl_server_credentials([server[::-1]]))
        self.named = self._serve(grpc.ssl_server_credentials([elsewhere[::-1]]))
        self.mutual = self._serve(grpc.ssl_server_credentials([server[::-1]], ours.pem, require_client_auth=True))

    def file(self, name: str, content: bytes) -> str:
        (self.folder / name).write_bytes(content)
        return str(self.folder / name)

    def _serve(self, credentials: grpc.ServerCredentials | None) -> str:
        def status(_: Any, __: Any) -> Any:
            response = GET_MODEL_STATUS.response()
            response.model_version_status.add(version=1, state=30)
            return response

        handler = grpc.unary_unary_rpc_method_handler(status, None, lambda message: message.SerializeToString())
        server = grpc.server(ThreadPoolExecutor(2))
        service, name = GET_MODEL_STATUS.path.strip("/").split("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
        address = "127.0.0.1:0"
        port = (
            server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
        )
        server.start()
        self._servers.append(server)
        return f"127.0.0.1:{port}"

    def close(self) -> None:
        for server in self._servers:
            server.stop(None).wait()


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    made = Yard(tmp_path_factory.mktemp("certificates"))
    yield made
    made.close()


def settings(yard: Yard, case: str) -> ModelConfig:
    client = {"certificate_file": yard.client[0], "key_file": yard.client[1]}
    stranger = {"certificate_file": yard.stranger[0], "key_file": yard.stranger[1]}
    ours: dict[str, str] = {"ca_file": yard.ca}
    target, tls = {
        "plain": (yard.plain, None),
        "tls": (yard.tls, ours),
        "tls with a certificate nobody asks for": (yard.tls, ours | client),
        "mutual": (yard.mutual, ours | client),
        "own name": (yard.named, ours | {"server_name": "model.internal"}),
        "no client certificate": (yard.mutual, ours),
        "a stranger's certificate": (yard.mutual, ours | stranger),
        "another authority": (yard.tls, {"ca_file": yard.foreign_ca}),
        "public authorities": (yard.tls, {}),
        "another name": (yard.named, ours),
        "a wrong name": (yard.tls, ours | {"server_name": "model.internal"}),
        "plaintext to tls": (yard.tls, None),
        "tls to plaintext": (yard.plain, ours),
    }[case]
    bundle = str(write_bundle(yard.folder / "bundle"))
    return ModelConfig(target=target, bundle=bundle, tls=None if tls is None else ModelTlsConfig(**tls))


@pytest.mark.parametrize("case", ["plain", "tls", "tls with a certificate nobody asks for", "mutual", "own name"])
def test_who_is_let_in(yard: Yard, bundle: Bundle, case: str) -> None:
    """Both the worker's channel and that of `check` connect."""
    model = settings(yard, case)

    async def ready() -> tuple[bool, str]:
        client = TfServingClient(model, bundle)
        answer = await client.ready()
        await client.close()
        return answer, client.unready

    assert asyncio.run(ready()) == (True, "")
    config = Config(model=model)
    first = next(model_findings(config))  # the servers have a status, and no more
    assert [finding.status for finding in (*start_findings(StartChecks(config)), first)][-1] == "ok"


@pytest.mark.parametrize(("host", "well"), [("model.internal", True), ("elsewhere.internal", False)])
def test_one_of_several_addresses_is_called_by_the_name_of_all(
    yard: Yard, bundle: Bundle, host: str, well: bool
) -> None:
    """Its certificate is for that name, not for the address that the name was looked up to."""
    model = ModelConfig(target=f"dns:///{host}:8500", tls=ModelTlsConfig(ca_file=yard.ca))

    async def ready() -> tuple[bool, str]:
        client = TfServingClient(model, bundle, yard.named)
        answer = await client.ready()
        await client.close()
        assert yard.named in client.served
        return answer, client.unready

    is_ready, reason = asyncio.run(ready())
    assert is_ready is well, reason
    assert well or "set model.tls.server_name" in reason


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("another authority", "model.tls.ca_file must hold the authority"),
        ("public authorities", "model.tls.ca_file must hold the authority"),
        ("another name", "set model.tls.server_name"),
        ("a wrong name", "set model.tls.server_name"),
        ("no client certificate", "set model.tls.certificate_file"),
        ("a stranger's certificate", "may not trust model.tls.certificate_file"),
        ("plaintext to tls", "set model.tls"),
        ("tls to plaintext", "does not speak TLS"),
    ],
)
def test_who_is_not_and_what_is_said(yard: Yard, bundle: Bundle, case: str, said: str) -> None:
    """An outage with a reason, in a call, in the readiness and in `check`: never a fault of an event."""
    model = settings(yard, case)

    async def ask() -> tuple[bool, str, ServingError]:
        client = TfServingClient(model, bundle)
        answer = await client.ready()
        with pytest.raises(ServingError) as caught:
            await client._call(b"", 20.0)
        await client.close()
        return answer, client.unready, caught.value

    ready, reason, error = asyncio.run(ask())
    assert not ready
    assert reason.startswith("UNAVAILABLE: ")
    assert said in reason
    assert (error.failure, error.code) == (Failure.TRANSIENT, "UNAVAILABLE")
    assert said in error.message
    assert classify("UNAVAILABLE", error.message)[0] is Failure.TRANSIENT
    (finding,) = model_findings(Config(model=model))
    assert finding.status == "fail"
    assert said in finding.detail


def test_an_outage_that_is_none_of_tls_is_told_without_its_advice(yard: Yard) -> None:
    """When no server answers, the message has no hint about certificates."""
    bundle = str(write_bundle(yard.folder / "bundle"))
    model = ModelConfig(target="127.0.0.1:1", bundle=bundle, tls=ModelTlsConfig())
    (finding,) = model_findings(Config(model=model))
    assert "UNAVAILABLE" in finding.detail
    assert "model.tls" not in finding.detail


def test_files_that_cannot_be_used_are_a_bad_configuration(yard: Yard, bundle: Bundle) -> None:
    """`check` ends with 2 and names key, file and fix; a client is not made; half a pair is no configuration at all."""
    rubbish = yard.file("rubbish.pem", b"no certificate")
    flags = ["--set", f"model.tls.ca_file={rubbish}"]
    environment = {name: None for name in os.environ if name.startswith("REXSTREAM_")}
    result = CliRunner().invoke(cli, ["check", *flags], env=environment)
    assert result.exit_code == 2
    assert f"model.tls.ca_file {rubbish} has no certificate" in result.output

    async def make() -> None:
        TfServingClient(ModelConfig(tls=ModelTlsConfig(ca_file=rubbish)), bundle)

    with pytest.raises(ValueError, match="has no certificate"):
        asyncio.run(make())
    for given, other in (("key_file", "certificate_file"), ("certificate_file", "key_file")):
        with pytest.raises(ConfigError, match=rf"model\.tls\.{given}.* is set without model\.tls\.{other}"):
            load_config(None, {}, [f"model.tls.{given}={rubbish}"])


def test_extract_takes_the_same_by_flags(yard: Yard) -> None:
    """A server that is not trusted ends with 3 and says so; a bad file and flags without --server end with 2."""
    runner = CliRunner()
    refused = runner.invoke(cli, ["extract", "--server", yard.tls, "--ca-file", yard.foreign_ca], input="")
    assert refused.exit_code == 3
    assert "not trusted" in refused.output
    pair = ["--certificate-file", yard.client[0], "--key-file", yard.client[1]]
    accepted = runner.invoke(
        cli,
        ["extract", "--server", yard.mutual, "--ca-file", yard.ca, *pair],
        input="",
    )
    assert accepted.exit_code == 0, accepted.output
    mixed = ["--certificate-file", yard.client[0], "--key-file", yard.stranger[1]]
    bad = runner.invoke(cli, ["extract", "--server", yard.mutual, *mixed], input="")
    assert bad.exit_code == 2
    assert "--key-file" in bad.output
    assert runner.invoke(cli, ["evaluate", "--data", yard.ca, "--ca-file", yard.ca]).exit_code == 2
    alone = runner.invoke(cli, ["extract", "--ca-file", yard.ca], input="")
    assert alone.exit_code == 2
    assert "belong to --server" in alone.output


def test_a_renewed_client_reads_its_files_again(yard: Yard, bundle: Bundle) -> None:
    """A stranger to the server until its certificate is replaced; files that cannot be used change nothing."""
    files = [
        yard.file(f"renewed.{end}", Path(file).read_bytes()) for end, file in zip("ck", yard.stranger, strict=True)
    ]
    tls = ModelTlsConfig(ca_file=yard.ca, certificate_file=files[0], key_file=files[1])

    async def go() -> list[bool]:
        client = TfServingClient(ModelConfig(target=yard.mutual, tls=tls), bundle)
        found = [await client.ready()]
        Path(files[0]).write_bytes(Path(yard.client[0]).read_bytes())
        with pytest.raises(CredentialFileError):
            await client.renew()
        found.append(await client.ready())
        Path(files[1]).write_bytes(Path(yard.client[1]).read_bytes())
        await client.renew()
        found.append(await client.ready())
        await client.close()
        return found

    assert asyncio.run(go()) == [False, False, True]


def test_a_proxy_of_the_environment_is_said_not_to_be_used(
    yard: Yard, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To whom it looks as if a proxy were to blame, or were to help. gRPC itself would go through it."""
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("grpc_proxy", "http://user:hunter2@127.0.0.1:3128")
    model = ModelConfig(target="127.0.0.1:1", bundle=str(write_bundle(yard.folder / "bundle")))

    async def unready() -> str:
        client = TfServingClient(model, bundle)
        await client.ready()
        await client.close()
        return client.unready

    (finding,) = model_findings(Config(model=model))
    for said in (asyncio.run(unready()), finding.detail):
        assert "127.0.0.1:1" in said
        assert said.endswith("the proxy of $grpc_proxy (127.0.0.1:3128) is not used for the model server")
