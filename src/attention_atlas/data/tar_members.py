"""Members of tar files, listed and read one by one without unpacking. `shards/00000.tar/0017.jpg` is the path
of one."""

from __future__ import annotations

import functools
import io
import tarfile
from pathlib import Path

from attention_atlas.errors import AtlasError

KEPT_LISTS = 256  # lists of tar members kept in memory


def read_member(path: Path) -> io.BytesIO | None:
    """The bytes of a member of a tar file; None if no folder in the path is a tar file.

    Raises AtlasError for a missing member or a damaged file."""
    archive = next((p for p in path.parents if p.suffix == ".tar" and p.is_file()), None)
    if archive is None:
        return None
    name = path.relative_to(archive).as_posix()
    changed = archive.stat().st_mtime_ns
    place = members(archive, changed).get(name)
    if place is None:
        raise AtlasError(f"{archive}: {name}: no such member; correct the path")
    offset, size = place
    with archive.open("rb") as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) < size:
        raise AtlasError(f"{archive}: {name}: is truncated; copy the archive again")
    return io.BytesIO(data)


@functools.lru_cache(KEPT_LISTS)
def members(archive: Path, changed: int = 0) -> dict[str, tuple[int, int]]:
    """{name: (offset, size) in bytes} of the files in a tar, in archive order; omits folders. changed:
    time of the last change, for the cache.

    Raises AtlasError for a missing, damaged or compressed file or one that is not a tar, a link or device, a
    name that occurs twice, or a name that leads out of the archive.
    """
    found: dict[str, tuple[int, int]] = {}
    try:
        size = archive.stat().st_size
        with tarfile.open(archive, "r:") as tar:
            for member in tar:
                if member.isdir():
                    continue
                name = member.name.removeprefix("./")
                where = f"{archive}: member '{member.name}'"
                if name.startswith(("/", "\\")) or ".." in Path(name.replace("\\", "/")).parts:
                    raise AtlasError(f"{where}: its path leads out of the archive; make the archive again")
                if not member.isreg():
                    raise AtlasError(f"{where}: is a link or a device, not a file; make the archive again")
                if name in found:
                    raise AtlasError(f"{where}: occurs twice; make the archive again")
                if member.offset_data + member.size > size:
                    raise AtlasError(f"{where}: is truncated; copy the archive again")
                found[name] = (member.offset_data, member.size)
    except FileNotFoundError:
        raise AtlasError(f"{archive}: no such file; correct the path") from None
    except (tarfile.TarError, OSError, ValueError) as error:
        raise AtlasError(
            f"{archive}: not an uncompressed tar that can be read ({error}); make it again"
        ) from None
    return found
