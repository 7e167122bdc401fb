"""Writes ``docs/configuration.md`` from the configuration tree: ``make docs``.

Types, bounds and defaults come from the tree's fields, the descriptions from the text below each field in
``consumer/config/tree.py`` and ``route.py``. A test fails when the file is not current.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from consumer.config import tree
from consumer.config.layers import PREFIX
from consumer.config.problems import KeyPath, dotted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.config.section import Section


FILE = Path(__file__).parents[2] / "docs" / "configuration.md"
WIDTH = 120

HEAD = """\
# Configuration

<!-- Written by `make docs` from consumer/config/tree.py and tests/house/configuration_doc.py: change those. -->

Everything but `model.bundle` and the input topic of a route has a default, and only a worker needs the bundle.
`rexstream config print` shows all keys with their effective values and where each came from,
secrets hidden; `rexstream check` finds what is wrong with them without starting a worker, and `rexstream check
--connect` tries the dependencies too. A configuration that cannot be run ends a command with exit code 2 and a list of
all its problems: key, place, what is wrong, and what to do.

## Where values come from

From three sources; the later wins, key by key:

1. a YAML file, `--config FILE` or the variable `REXSTREAM_CONFIG`;
2. environment variables: `REXSTREAM_` and the key in capitals, with two underscores for each dot
   (`REXSTREAM_MODEL__TARGET` is `model.target`);
3. `--set KEY=VALUE`, as often as needed (`--set model.target=tf-serving:8500`).

Sections merge; a list or a value replaces the one below it. An element of a list has its number, from 0:
`REXSTREAM_ROUTES__0__OUTPUT`, `--set routes.0.output=facts`. A variable or flag for a key that takes text is taken as
it is written; for any other key it is read as YAML, so `--set 'routes.0.tasks=[ner, sentiment]'` gives a list, and
`null` switches off what can be. Settings below `kafka.client` are always text there, and a variable writes
librdkafka's dots as underscores: `REXSTREAM_KAFKA__CLIENT__CLIENT_RACK` is `client.rack`. A section whose keys are all
commented out means its defaults, except `model.tls` and `model.canary`: write `tls: {}` for TLS with public
authorities. Keys at the top of the file that begin with `x-` are no configuration: they hold what YAML anchors name
(`x-route: &route {…}`, and then `{<<: *route, input: a}`).

Numbers that YAML reads as others than are written (`010` is 8, `1:30` is 90) are refused; below `kafka.client` they are
text as written, as are `1.10` and dates.

No variable inside a value is expanded: text that holds `${NAME}`, `$(NAME)` or `{{ … }}` is refused. So is text that
begins or ends with white space or a line end (in YAML write `|-` in place of `|`), or has a character that is not seen
in it, such as NUL, a byte order mark or a zero-width space. A password may begin and end with spaces and hold what
looks like a variable; certificates (`….pem`) and `sasl.kerberos.kinit.cmd` are taken as they are.

A key that does not exist is an error, also as a variable, and so is a value of another type: `"500"` in quotes is no
number. Left alone are `REXSTREAM_CONFIG`, variables that begin with `REXSTREAM_TEST_`, and those that Kubernetes sets
for a Service whose name begins with `rexstream`. The configuration, task files and bundles are read once, when a
worker starts, but for `model.canary.share` and `model.canary.slower`, which a running worker reads again from its file,
and the bundles that an asterisk in `model.bundles` finds later; certificates, keys and passwords in files are read
again when they change ([operations](operations.md#certificates-keys-and-passwords)).

## Secrets

Keep passwords in files that only the worker's user can read: `kafka.security.password_file`,
`kafka.registry.password_file`. The password of `kafka.security` may come from the variable
`REXSTREAM_KAFKA__SECURITY__PASSWORD` instead; in a file, or in `--set`, which every user of the machine can read, it
is refused. A secret below `kafka.client`, such as `sasl.password`, is refused in `--set` and a warning in the file; a
URL with a password in it is refused in `--set`. What is printed or logged shows `(hidden)` in place of secrets.

## Examples

The smallest that is worth a file: plaintext, at least once, one topic in and one out.

```yaml
kafka:
  bootstrap_servers: kafka:9092
routes:
  - input: shop.reviews
    tasks: [product_features]
    output: shop.facts
model:
  target: tf-serving:8500
  bundle: /models/rexuninlu/1/bundle
delivery:
  dead_letter_topic: shop.reviews.dead
```

TLS and a login at the brokers, mutual TLS to the model server, and a topic for each task.

```yaml
kafka:
  bootstrap_servers: kafka-1.example:9093,kafka-2.example:9093
  group_id: reviews-extraction
  security:
    protocol: sasl_ssl
    mechanism: SCRAM-SHA-512
    username: rexstream
    password_file: /run/secrets/kafka
    ca_file: /etc/ssl/kafka-ca.pem
  client:
    client.rack: zone-a
routes:
  - input: shop.reviews
    tasks: [product_features, sentiment]
    output: shop.facts.{task}
model:
  target: tf-serving.example:8500
  label: stable
  bundle: /models/rexuninlu/1/bundle
  bundles: [/models/rexuninlu/2/bundle]
  canary: {label: canary, share: 0.05}
  tls:
    ca_file: /etc/ssl/model-ca.pem
    certificate_file: /etc/ssl/worker.pem
    key_file: /etc/ssl/worker.key
delivery:
  dead_letter_topic: shop.reviews.dead
```

Exactly once, for readers with `isolation.level=read_committed`: a lower interval makes results visible sooner, and the
timeout is how long such readers may have to wait after a worker was killed.

```yaml
kafka:
  bootstrap_servers: kafka:9092
routes:
  - input: shop.reviews
    tasks: [product_features]
    output: shop.facts
model:
  target: tf-serving:8500
  bundle: /models/rexuninlu/1/bundle
delivery:
  mode: exactly_once
  dead_letter_topic: shop.reviews.dead
  transaction_interval_ms: 50
  transaction_timeout_ms: 10000
```

## All keys

Of each key: its type with its bounds, its default, its variable, and what it does. `0` in a route's key stands for any
route's number.
"""

_TYPES: dict[Any, str] = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "anything"}
_BOUNDS = (("gt", "above {}"), ("ge", "at least {}"), ("lt", "below {}"), ("le", "at most {}"))


def document() -> str:
    """The whole file."""
    parts = [HEAD]
    for path, key in tree.KEYS.items():
        if tree.is_section(key.type):
            parts.append("".join(_section(path, key.type)))
    return "\n".join(parts)


def _section(path: KeyPath, section: type[Section]) -> Iterator[str]:
    title = f"`{dotted(path)}`" if path else "At the top"
    yield f"### {title}\n\n{_wrapped(_plain(inspect.getdoc(section) or ''))}\n"
    if path and tree.key_at(path).optional:
        yield "\nThe section is off unless it is there.\n"
    if path == ("routes", 0):
        default = [route.model_dump(exclude_unset=True, mode="json") for route in tree.Config().routes]
        yield f"\nA list; without the key it is `{yaml.safe_dump(default, default_flow_style=True).strip()}`.\n"
    texts = descriptions(section)
    for name, field in section.model_fields.items():
        here = (*path, name)
        if not tree.is_section(tree.key_at(here).type) and here != ("routes",):
            yield "\n" + _key(here, field, texts[name])


def _key(path: KeyPath, field: FieldInfo, text: str) -> str:
    variable = PREFIX + "__".join(str(part).upper() for part in path)
    if path == ("kafka", "client"):
        variable += "__…"
    head = f"- **`{dotted(path)}`**: {_type(path, field)}, {_default(field)}. `{variable}`"
    return f"{head}\n\n{_wrapped(_plain(text), '  ')}\n"


def _type(path: KeyPath, field: FieldInfo) -> str:
    kind = tree.key_at(path).type
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is tuple:
        return "list of text"
    if get_origin(kind) is dict:
        return "mapping"
    constraints = list(_constraints(field))
    bounds = [text.format(getattr(one, name)) for one in constraints for name, text in _BOUNDS if hasattr(one, name)]
    switch = [", or null"] if field.default is not None and tree.key_at(path).optional else []
    return "".join([" ".join([_TYPES[kind], " and ".join(bounds)]).strip(), *switch])


def _constraints(found: Any) -> Iterator[Any]:
    """The bounds of a field, wherever its type has them: beside it, or inside ``Annotated[…] | None``."""
    if isinstance(found, FieldInfo):
        yield from found.metadata
        yield from _constraints(found.annotation)
    elif get_origin(found) is Annotated:
        for one in get_args(found)[1:]:
            yield from one.metadata if isinstance(one, FieldInfo) else (one,)
    elif get_origin(found) not in (None, tuple, dict, Literal):
        for part in get_args(found):
            if part is not NoneType:
                yield from _constraints(part)


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "required"
    if default is None:
        return "unset"
    shown = yaml.safe_dump(list(default) if isinstance(default, tuple) else default, default_flow_style=True)
    return f"default `{shown.removesuffix(chr(10)).removesuffix(chr(10) + '...')}`"


def descriptions(section: type[Section]) -> dict[str, str]:
    """The text below each field of a section, empty where there is none."""
    module = ast.parse(inspect.getsource(sys.modules[section.__module__]))
    (body,) = (node.body for node in module.body if isinstance(node, ast.ClassDef) and node.name == section.__name__)
    texts = {}
    for node, below in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            said = below.value if isinstance(below, ast.Expr) else None
            texts[node.target.id] = str(said.value) if isinstance(said, ast.Constant) else ""
    return texts


def _plain(text: str) -> str:
    """A docstring as Markdown: one line a paragraph, single backquotes."""
    return " ".join(text.replace("``", "`").split())


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(document(), "utf-8")
