"""What of a release is offered where: the addresses in ``releases.toml``, those in path lists, and mirrors of both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote, urljoin, urlsplit

from k710.config import PublishedFile, Release, load_releases
from k710.errors import InputError, UsageError
from k710.fetch.download import has_page

MAX_ARCHIVES = 100_000
"""Lines of a path list; the longest published one has some hundred."""
_SCHEMES = ("http", "https")
_TAR_ENDINGS = (".tar.gz", ".tgz", ".tar")


def chosen_releases(names: Sequence[str]) -> list[Release]:
    """The releases of these names, each once.

    Raises:
        UsageError: there is none, or one is unknown.
    """
    known = load_releases()
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        what = f"unknown release {unknown[0]!r}" if unknown else "no release is named"
        raise UsageError(what, hint=f"known: {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)]


def published_lists(release: Release, publisher: str | None) -> list[PublishedFile]:
    """The annotation files of a release, of one publisher: the first that has any, if None.

    Raises:
        UsageError: the publisher does not offer them.
    """
    files = [f for f in release.published if f.what == "annotations"]
    publishers = list(dict.fromkeys(f.publisher for f in files))
    wanted = publisher or (publishers[0] if publishers else "")
    if wanted not in publishers:
        others = f"those of {release.name} are published by {', '.join(publishers)}" if publishers else ""
        raise UsageError(f"no annotations of {release.name} by {wanted or 'anybody'}", hint=others)
    return [f for f in files if f.publisher == wanted]


def published_videos(release: Release, splits: Sequence[str]) -> list[PublishedFile]:
    """The path lists of some splits of a release, and the archive of replacements for each that has one.

    Raises:
        UsageError: there are none.
    """
    files = [f for f in release.published if f.what in ("path_list", "replacement")]
    known = list(dict.fromkeys(f.split for f in files))
    if not known:
        with_videos = [r.name for r in load_releases().values() if any(f.what == "path_list" for f in r.published)]
        raise UsageError(
            f"no videos of {release.name} are published", hint=f"there are those of {', '.join(with_videos)}"
        )
    unknown = [split for split in splits if split not in known]
    if unknown:
        raise UsageError(
            f"no videos of {release.name}:{unknown[0]} are published", hint=f"there are {', '.join(known)}"
        )
    return [f for f in files if f.split in splits]


def mirrored(url: str, base_url: str | None) -> str:
    """``url`` on the mirror at ``base_url``: its scheme and host are replaced, its path is kept.

    Raises:
        UsageError: ``base_url`` is no address of HTTP.
    """
    if base_url is None:
        return url
    if not _is_http(base_url):
        raise UsageError(f"--base-url {base_url}: not an http or https address")
    base = base_url.rstrip("/")
    if url.startswith(f"{base}/"):
        return url
    parts = urlsplit(url)
    return f"{base}{parts.path}{f'?{parts.query}' if parts.query else ''}"


def read_path_list(data: bytes, where: str, list_url: str, base_url: str | None) -> list[str]:
    """The URLs of the archives that a path list names, one a line, each once, in its order.

    Raises:
        InputError: it is no such list, or two archives would have one name.
    """
    if has_page(data[:4096]):
        raise InputError(f"{where}: a page, not a list of archives", hint="fetch it again")
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8", hint="fetch it again") from error
    by_name: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        url = _joined(list_url, line.strip())
        name = archive_name(url) if _is_http(url) else ""
        if not name:
            raise InputError(f"{where} row {number}: not the address of an archive: {line.strip()[:200]!r}")
        if by_name.setdefault(name, url) != url:
            raise InputError(f"{where} row {number}: a second archive called {name}", hint="keep one of the two")
        if len(by_name) > MAX_ARCHIVES:
            raise InputError(f"{where}: more than {MAX_ARCHIVES:,} archives")
    if not by_name:
        raise InputError(f"{where}: names no archive", hint="fetch it again")
    return [mirrored(url, base_url) for url in by_name.values()]


def archive_name(url: str) -> str:
    """The file name of an archive; empty where ``url`` has none that is fit for a disk."""
    name = unquote(PurePosixPath(urlsplit(url).path).name)
    is_fit = name.isprintable() and not set(name) & set('\\/:*?"<>|') and len(name.encode()) <= 200
    return name if is_fit and name.lower().endswith(_TAR_ENDINGS) and archive_stem(name) and name[0] != "." else ""


def archive_stem(name: str) -> str:
    """The name of an archive without its endings."""
    ending = next((e for e in _TAR_ENDINGS if name.lower().endswith(e)), "")
    return name[: len(name) - len(ending)].rstrip(". ")


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # The port is looked at when it is asked for.
        return parts.scheme in _SCHEMES and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _joined(base: str, url: str) -> str:
    """``url`` as seen from ``base``; empty when it is no address."""
    try:
        return urljoin(base, url)
    except ValueError:
        return ""
