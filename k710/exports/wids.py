"""Index files of wids, one a view: how many samples each shard holds, so that a sample is read by its number."""

from __future__ import annotations

import json

from k710.exports.job import ExportJob, Format, Written
from k710.exports.shards import shards_of

_HOW = """\
```python
import json

import wids

# localname=str reads local tars where they are; without it wids copies each to /tmp/_wids_cache first.
data = wids.ShardListDataset("NAME.json", localname=str, transformations=[])
sample = data[0]
sample[".mp4"].read(), json.load(sample[".json"])["labels"]
```

Shards are found from the folder of the index. wids writes a `.lock` file beside each shard that it opens, here and not
in the build. Do not give it `cache_dir`, which stores shards by file name alone."""


def _write(job: ExportJob) -> Written:
    files = {}
    for name, shards in shards_of(job).items():
        files[name] = f"{name}.json"
        described = [{"url": s.address, "nsamples": s.clips, "md5sum": s.md5, "filesize": s.size_bytes} for s in shards]
        index = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": name, "shardlist": described}
        job.folder.text(files[name], json.dumps(index, indent=1) + "\n")
    return Written(files=files, how=_HOW)


WIDS = Format(summary="Write index files for wids.", reads="shards", write=_write, unlabelled="single clips")
