"""One look at the endpoints file, or the folder of them, and at the secret files that they name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Final

from shared.endpoints.endpoint import Endpoints, OrganizationProfile
from shared.endpoints.kept_secrets import KeptSecrets, SecretMemory, SettingSecrets, sources_in
from shared.endpoints.secret_source import SecretFetcher, SecretSource
from shared.endpoints.table import Placed
from shared.endpoints.text import Tables, read_tables
from shared.endpoints.union import ProfileUnion, joined
from shared.errors import SettingsError
from shared.files.background import Pace
from shared.files.patient import FileHangs, PatientFiles, toml_files
from shared.files.plain_text import decoded, no_text
from shared.files.versions import Failure, FileVersions, Stamp

_Files = Mapping[Path, Tables]


@dataclass(frozen=True, slots=True)
class Choice:
    """The tables that hold.

    Attributes:
        files: the tables of each file, be it as it is or as it was.
        profiles: what they say of each organization, by its id.
        errors: what is wrong with a file as it is.
        is_new: whether these aren't the tables that held before.
    """

    files: _Files
    profiles: Mapping[str, OrganizationProfile]
    errors: Mapping[Path, SettingsError]
    is_new: bool

    @property
    def tables(self) -> list[Placed]:
        """All of them, in the order of the files."""
        return [placed for tables in self.files.values() for placed in tables.placed]


class TablesOfFiles:
    """Reads files anew where they have changed, and chooses which version of each holds."""

    def __init__(self) -> None:
        self._read: dict[Path, Tables | SettingsError] = {}
        self._held: _Files = {}

    def read(self, path: Path, content: bytes | Failure, pace: Pace) -> None:
        """Read a file that has changed.

        Args:
            path: the file.
            content: all of it, or why it can't be read.
            pace: of the work.
        """
        try:
            text = _text(path, content)
            self._read[path] = read_tables(text, path, before=self._held.get(path), pace=pace)
        except SettingsError as exc:
            self._read[path] = exc

    def choose(self, paths: Sequence[Path], pace: Pace) -> Choice:
        """Choose the tables that hold.

        A file that is wrong by itself stays as it last held. One that contradicts others does so
        too if it is the one that has changed, or the later one of several.

        Args:
            paths: the files that there are, all of them read.
            pace: of the work.
        """
        errors = {
            path: found for path in paths if isinstance(found := self._read[path], SettingsError)
        }
        while True:
            files = self._versions(paths, errors)
            # Those that held together before don't contradict each other: they go first.
            old = [path for path in files if files[path] is self._held.get(path)]
            new = [path for path in files if files[path] is not self._held.get(path)]
            union = ProfileUnion()
            contradiction = _join(union, files, [*old, *new], pace)
            if contradiction is None:
                is_new = bool(new) or files.keys() != self._held.keys()
                return Choice(files, union.profiles(), errors, is_new)
            # With its old version in its place another changed one may be the contradiction.
            errors |= contradiction

    def hold(self, choice: Choice) -> None:
        """From now on these hold."""
        self._held = choice.files
        self._read = {path: self._read[path] for path in {**choice.files, **choice.errors}}

    def _versions(self, paths: Sequence[Path], errors: Mapping[Path, SettingsError]) -> _Files:
        files: dict[Path, Tables] = {}
        for path in paths:
            read = self._held.get(path) if path in errors else self._read[path]
            if isinstance(read, Tables):
                files[path] = read
        return files


def _join(
    union: ProfileUnion, files: _Files, order: Sequence[Path], pace: Pace
) -> dict[Path, SettingsError] | None:
    """Join all; gives the file that contradicts those before it, if one does."""
    for path in order:
        for draft, place in files[path].placed:
            try:
                union.add(draft, place)
            except SettingsError as exc:
                return {path: exc}
            pace.breathe()
    return None


def _text(path: Path, content: bytes | Failure) -> str:
    if isinstance(content, Failure):
        why = content.why
    else:
        try:
            return decoded(content)
        except UnicodeDecodeError as exc:
            why = no_text(exc)
    raise SettingsError("ENDPOINTS_FILE", "a readable file", f"{path} ({why})")


_TRIES: Final = 5
"""How often a first reading is tried where the files change meanwhile."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a look has found.

    Attributes:
        endpoints: to go by from now on; None: those as before.
        errors: what is wrong with files as they are; in their place hold older versions.
    """

    endpoints: Endpoints | None
    errors: Mapping[Path, SettingsError]


class EndpointsReader:
    """Looks at the files again and again, and reads what has changed.

    A change counts once two looks in a row have seen it, so that a file which an editor is just
    writing is not taken half. What is read is taken only if no name and no stamp has changed by the
    end: an endpoint that moves from one file to another would be in neither for a moment.

    Args:
        path: the file, or the folder of files.
        environ: where ``{ env = "…" }`` secrets are.
        files: asks the file system.
        verifies: whether the secrets of endpoints are needed, rather than those in settings.
    """

    def __init__(
        self, path: Path, environ: Mapping[str, str], files: PatientFiles, *, verifies: bool
    ) -> None:
        self._path = path
        self._files = files
        self._versions = FileVersions(files)
        self._tables = TablesOfFiles()
        self._verifies = verifies
        fetcher = SecretFetcher(environ, self._secret_text)
        self._memory = SecretMemory()
        self._secrets = KeptSecrets(fetcher, self._memory)
        self._settings = SettingSecrets(fetcher, self._memory)
        self._secret_paths: frozenset[Path] = frozenset()
        self._names: list[Path] = []
        self._seen: Mapping[Path, Stamp] = {}
        self._pending: set[Path] = set()
        self.is_settled = True
        """Whether the last look has seen what the one before it had seen."""

    def first(self) -> Endpoints:
        """Read everything for the first time.

        Raises:
            SettingsError: a file can't be read, or is wrong.
        """
        for _ in range(_TRIES):
            names = self._list()
            reading = self._read(names, self._versions.stamps(names), Pace(rest=0))
            if reading is None:  # it has changed meanwhile
                continue
            for error in reading.errors.values():
                raise error
            if reading.endpoints is not None:
                return reading.endpoints
        expected = "files that stay as they are for a moment"
        raise SettingsError("ENDPOINTS_FILE", expected, f"{self._path}, which is being changed")

    def again(self, pace: Pace) -> Reading | None:
        """Look, and read what has changed; nothing where nothing has, or not for long enough.

        Raises:
            SettingsError: the path itself can't be looked at.
        """
        names = self._list()
        stamps = self._versions.stamps([*names, *self._secret_paths])
        self.is_settled = stamps == self._seen
        self._seen = stamps
        if not self.is_settled:
            return None
        if not self._is_due(names) and not self._versions.differ(stamps):
            return None
        return self._read(names, stamps, pace)

    def _is_due(self, names: list[Path]) -> bool:
        """Whether there is something to do though no file has changed since the last look."""
        return bool(self._pending) or names != self._names or self._is_forgetful()

    def _is_forgetful(self) -> bool:
        """Whether a lost secret has been kept for long enough."""
        return time() >= self._memory.deadline

    def _list(self) -> list[Path]:
        """The endpoints files."""
        answer = self._files.each(toml_files, [self._path])[self._path]
        if isinstance(answer, FileNotFoundError):
            return [self._path]  # it is told when it is read
        if isinstance(answer, OSError | ValueError):
            got = f"{self._path} ({Failure.of(answer).why})"
            raise SettingsError("ENDPOINTS_FILE", "a readable file or folder", got)
        if not answer:
            raise SettingsError("ENDPOINTS_FILE", "a folder with *.toml files", f"{self._path}")
        return answer

    def _read(self, names: list[Path], stamps: Mapping[Path, Stamp], pace: Pace) -> Reading | None:
        due = self._is_due(names)
        changed = self._versions.refresh(stamps)
        if not due and not changed:
            return None
        self._pending |= changed
        for path in names:
            if path in changed or path not in self._names:
                self._tables.read(path, self._versions.content(path), pace)
        choice = self._tables.choose(names, pace)
        # Which files of secrets there are, only the tables tell: new ones are read in the same
        # look.
        secret_paths = frozenset(self._paths(choice))
        others = self._versions.stamps(secret_paths - stamps.keys())
        self._pending |= self._versions.refresh(others)
        self._names = names
        if not self._is_still({**stamps, **others}, names):
            return None
        if not choice.files:  # a folder that is gone: nothing is known, so all stays as it was
            raise next(iter(choice.errors.values()))
        return self._taken(choice, secret_paths, pace)

    def _is_still(self, stamps: Mapping[Path, Stamp], names: list[Path]) -> bool:
        """Whether nothing has changed since; otherwise the next look starts from what is now."""
        now = self._list()
        self._seen = self._versions.stamps(stamps.keys() | set(now))
        return now == names and self._seen == stamps

    def _taken(self, choice: Choice, secret_paths: frozenset[Path], pace: Pace) -> Reading:
        kept = {*self._names, *secret_paths}
        is_news = choice.is_new or bool(self._pending & secret_paths) or self._is_forgetful()
        self._tables.hold(choice)
        self._secret_paths = secret_paths
        self._versions.keep_only(kept)
        self._seen = {path: self._seen[path] for path in kept}
        self._pending = set()
        return Reading(self._endpoints(choice, pace) if is_news else None, choice.errors)

    def _endpoints(self, choice: Choice, pace: Pace) -> Endpoints:
        tables = choice.tables
        if self._verifies:
            known = self._secrets.of(tables, pace)
            return joined(tables, choice.profiles, known, (), pace)
        profiles, missing = self._settings.fill(choice.profiles, tables, pace)
        return joined(tables, profiles, {}, missing, pace)

    def _paths(self, choice: Choice) -> Iterable[Path]:
        """The secret files that this program needs."""
        for draft, place in choice.tables:
            sources: Iterable[SecretSource] = (
                [entry.source for entry in draft.secrets]
                if self._verifies
                else sources_in(draft.settings)
            )
            for source in sources:
                if source.kind == "file":
                    yield place.path.parent / source.text.reveal()

    def _secret_text(self, path: Path) -> str:
        content = self._versions.content(path)
        if isinstance(content, bytes):
            return decoded(content)
        if content.hangs:
            raise FileHangs(self._files.limit)
        raise OSError(None, content.why)
