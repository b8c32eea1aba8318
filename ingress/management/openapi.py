"""What an OpenAPI document lists of webhooks: their operations and the names of their events."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import msgspec
import yaml

from shared.errors import SellfernError

LARGEST: Final = 8 * 1024 * 1024
"""Bytes of a document; those of large public APIs have a few million."""

MOST: Final = 10_000
"""Operations, and names of events, that one document may list."""

EVENT_PATTERN: Final = re.compile(r"[a-z][a-z0-9_]{0,63}(?:\.[a-z][a-z0-9_]{0,63}){1,7}")
"""What the name of an event looks like, such as ``order.fulfillment.shipped``."""

_VERSION: Final = re.compile(r"3\.[01](?:\.[0-9]{1,6})?(?:-[a-z0-9.]{1,20})?")
_METHODS: Final = ("get", "post", "put", "patch", "delete", "head", "options", "trace")
_ROUTE: Final = re.compile(r"(?:/api)?(?:/v[0-9]{1,3})?(/webhooks(?:/.*)?)")
_PLACE: Final = re.compile(r"\{([A-Za-z0-9_.-]{1,64})\}")
_SEGMENT: Final = re.compile(rf"(?!\.\.?\Z)(?:[A-Za-z0-9_.~:-]|{_PLACE.pattern}){{1,128}}")
_PREFIX: Final = re.compile(r"(?:/(?!\.\.?(?:/|\Z))[A-Za-z0-9_.~-]{1,64}){0,8}")
_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SHOWN: Final = 80

# Without the C library PyYAML reads slowly, but the same. Its basic loader makes texts of all
# scalars, so that `3.1` stays as it is written, and runs nobody's code.
_YamlLoader: Final = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

# Maps from names of one's own choice to schemas, and what holds no schema at all.
_NAMED: Final = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_NO_SCHEMAS: Final = frozenset({"example", "examples", "default", "enum", "const", "description"})


class DocumentError(SellfernError):
    """A document is not what can be imported.

    Attributes:
        expected: what would have been right.
        got: what was there.
    """

    def __init__(self, expected: str, got: str) -> None:
        self.expected = expected
        self.got = got
        super().__init__(f"expected {expected}, got {got}")


@dataclass(frozen=True, slots=True)
class Listing:
    """What a document lists of webhooks.

    Attributes:
        title: of the document, with its version; for people.
        operations: by name, ``METHOD /webhooks/{id}``, the path that is to be asked for, with
            the same places in it; None where the document has no paths at all.
        events: the names of events in order; None where the document names none, which doesn't
            say that there are none.
    """

    title: str
    operations: Mapping[str, str] | None
    events: tuple[str, ...] | None


def read_document(content: bytes) -> Listing:
    """Read an OpenAPI document 3.0 or 3.1, in JSON or YAML.

    Raises:
        DocumentError: it is none, or too large, or it speaks of no webhooks.
    """
    document = _Document(_parsed(content))
    listing = Listing(document.title(), document.operations(), document.events())
    # Taken for the truth, such a document would make everything unavailable.
    if not listing.operations and not listing.events:
        raise DocumentError(
            "paths under /webhooks, a webhooks section or names of events", "none of them"
        )
    return listing


def _parsed(content: bytes) -> Mapping[str, Any]:
    # Before it is parsed, which takes many times its size.
    if len(content) > LARGEST:
        raise DocumentError(f"at most {LARGEST} bytes", f"{len(content)}")
    try:
        text = content.decode("utf-8-sig")
        root = msgspec.json.decode(text) if text.lstrip()[:1] == "{" else _yaml(text)
    except UnicodeDecodeError:
        raise DocumentError("UTF-8 text", "other bytes") from None
    except msgspec.DecodeError as exc:
        raise DocumentError("JSON", f"a mistake: {exc}") from None
    except yaml.YAMLError as exc:
        raise DocumentError("YAML", f"a mistake: {' '.join(str(exc).split())[:300]}") from None
    except RecursionError:
        raise DocumentError("a document of moderate depth", "one nested too deeply") from None
    if not isinstance(root, dict):
        raise DocumentError("an OpenAPI document 3.0 or 3.1", _kind(root))
    _check_version(root)
    return root


def _yaml(text: str) -> Any:
    # An alias becomes one more reference to the same object, never a copy: it can't grow here.
    return yaml.load(text, Loader=_YamlLoader)  # noqa: S506  # the basic loader only makes texts


def _check_version(root: Mapping[str, Any]) -> None:
    version = root.get("openapi")
    if isinstance(version, str) and _VERSION.fullmatch(version):
        return
    got = f"swagger {root['swagger']!r:.20}" if "swagger" in root else f"openapi {version!r:.40}"
    raise DocumentError("an OpenAPI document 3.0 or 3.1", got)


class _Document:
    """A parsed document, whose parts may be anything."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._targets: dict[str, Any] = {}
        self._events: dict[str, None] = {}  # the names that have been found so far
        self._searched: set[tuple[int, bool, bool]] = set()

    def title(self) -> str:
        """Title and version, as far as they are texts."""
        info = self._root.get("info")
        parts = [info.get(key) for key in ("title", "version")] if isinstance(info, dict) else []
        return " ".join(part for part in parts if isinstance(part, str))[:_SHOWN]

    def operations(self) -> Mapping[str, str] | None:
        """The operations under /webhooks."""
        if not self._root.get("paths"):
            return None
        prefix = self._prefix()
        found: dict[str, str] = {}
        for template, name, item in self._webhook_paths():
            path = prefix + template
            for method in _METHODS:
                # Of several versions of one path the plain one counts, else the first.
                if method in item and (template == name or f"{method.upper()} {name}" not in found):
                    found[f"{method.upper()} {name}"] = path
        return _bounded(found, "operations")

    def events(self) -> tuple[str, ...] | None:
        """The names of events."""
        for key in ("webhooks", "x-webhooks"):
            section = self._mapping(self._root.get(key) or {}, key)
            self._events |= dict.fromkeys(name for name in section if _is_event(name))
            for item in section.values():
                self._search(item, loosely=True)
        for _, _, item in self._webhook_paths():
            self._search(item, loosely=True)
        components = self._mapping(self._root.get("components") or {}, "components")
        schemas = self._mapping(components.get("schemas") or {}, "components.schemas")
        for name, schema in schemas.items():
            self._search(schema, loosely=False, of_events=_speaks_of_events(name))
        return tuple(_bounded(self._events, "names of events")) or None

    def _webhook_paths(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """Each path under /webhooks: with its version, without, and what it holds."""
        for key, value in self._mapping(self._root.get("paths") or {}, "paths").items():
            route = _ROUTE.fullmatch(str(key).rstrip("/"))
            if route:
                head = str(key)[: route.start(1)]
                name = _normal(route.group(1), str(key))
                yield head + name, name, self._mapping(self._resolved(value), f"paths.{key}")

    def _prefix(self) -> str:
        """The path of the first server; its host is never taken from a document."""
        servers = self._root.get("servers")
        server = servers[0] if isinstance(servers, list) and servers else None
        if not isinstance(server, dict) or not isinstance(url := server.get("url"), str):
            return ""
        try:
            path = urlsplit(_filled(url, server)).path.rstrip("/")
        except ValueError:
            path = "?"
        if not _PREFIX.fullmatch(path):
            raise DocumentError("the URL of a server with a plain path", f"{url!r:.{_SHOWN}}")
        return path

    def _search(self, node: Any, *, loosely: bool, of_events: bool = False) -> None:
        """Collect enumerations of event names in schemas; each part is read once.

        Args:
            node: where to begin.
            loosely: whether a property called ``type`` speaks of events, as it does in an
                envelope, but not in any schema of the document.
            of_events: whether ``node`` itself speaks of events.
        """
        stack = [(node, of_events)]
        while stack:
            part, about = stack.pop()
            part = self._resolved(part)
            mark = (id(part), about, loosely)
            if not isinstance(part, dict | list) or mark in self._searched:
                continue
            self._searched.add(mark)
            if isinstance(part, list):
                stack += [(each, about) for each in part]
                continue
            about = about or (loosely and _names_events(part.get("name"), loosely=True))
            if about:
                self._events |= dict.fromkeys(_enumerated(part))
            stack += _inside(part, about=about, loosely=loosely)

    def _resolved(self, node: Any) -> Any:
        """Follow references within the document, which may lead to further ones."""
        followed: dict[str, None] = {}
        while isinstance(node, dict) and isinstance(node.get("$ref"), str):
            pointer = node["$ref"]
            if pointer in followed:
                got = f"{pointer!r:.{_SHOWN}}, which leads back to itself"
                raise DocumentError("references that lead somewhere", got)
            followed[pointer] = None
            node = self._targets[pointer] if pointer in self._targets else self._at(pointer)
        self._targets |= dict.fromkeys(followed, node)
        return node

    def _at(self, pointer: str) -> Any:
        node: Any = self._root
        if pointer != "#" and not pointer.startswith("#/"):
            expected = "references within the document (bundle it into one file first)"
            raise DocumentError(expected, f"{pointer!r:.{_SHOWN}}")
        for part in pointer.split("/")[1:]:
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(node, list) and key.isdecimal() and int(key) < len(node):
                node = node[int(key)]
            elif isinstance(node, dict) and key in node:
                node = node[key]
            else:
                raise DocumentError("references to what is there", f"{pointer!r:.{_SHOWN}}")
        return node

    def _mapping(self, node: Any, where: str) -> Mapping[str, Any]:
        if not isinstance(node, dict):
            raise DocumentError(f"a mapping at {where:.{_SHOWN}}", _kind(node))
        return node


def _inside(part: Mapping[str, Any], *, about: bool, loosely: bool) -> Iterator[tuple[Any, bool]]:
    """The schemas in a part, each with whether it speaks of events."""
    for key, value in part.items():
        if key in _NAMED and isinstance(value, dict):
            for name, each in value.items():
                yield each, _names_events(name, loosely=loosely)
        elif key not in _NO_SCHEMAS:
            yield value, about


def _enumerated(schema: Mapping[str, Any]) -> list[str]:
    """The names in an enumeration, if it has nothing else in it but patterns such as ``*``."""
    listed = schema.get("enum")
    values = listed if isinstance(listed, list) else [schema.get("const")]
    names = [value for value in values if isinstance(value, str) and not value.endswith("*")]
    return names if all(map(_is_event, names)) else []


def _is_event(name: object) -> bool:
    return isinstance(name, str) and EVENT_PATTERN.fullmatch(name) is not None


def _speaks_of_events(name: object) -> bool:
    return isinstance(name, str) and "event" in name.lower()


def _names_events(name: object, *, loosely: bool) -> bool:
    return _speaks_of_events(name) or (loosely and name in ("type", "topic"))


def _normal(route: str, key: str) -> str:
    """A path with the names of its places as this project has them: ``{id}`` for the first."""
    segments = route[1:].split("/")
    if not all(map(_SEGMENT.fullmatch, segments)):
        raise DocumentError("paths of plain segments and {parameters}", f"{key!r:.{_SHOWN}}")
    first = next(_PLACE.finditer(route), None)

    def renamed(place: re.Match[str]) -> str:
        return "{id}" if first and place[0] == first[0] else f"{{{_snake(place[1])}}}"

    return _PLACE.sub(renamed, route)


def _snake(name: str) -> str:
    return _WORD_START.sub("_", name).replace("-", "_").lower()


def _filled(url: str, server: Mapping[str, Any]) -> str:
    """A server's URL with the defaults of its variables."""
    variables = server.get("variables")
    for name, variable in variables.items() if isinstance(variables, dict) else ():
        default = variable.get("default") if isinstance(variable, dict) else None
        url = url.replace(f"{{{name}}}", str(default))
    return url


def _bounded(found: dict[str, Any], noun: str) -> dict[str, Any]:
    if len(found) > MOST:
        raise DocumentError(f"at most {MOST} {noun}", f"{len(found)}")
    return found


def _kind(value: object) -> str:
    names = {type(None): "nothing", str: "a text", dict: "a mapping", list: "a list"}
    return names.get(type(value), f"a {type(value).__name__}")
