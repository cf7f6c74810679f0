// What stands below a command's options: lines of at most 80 columns. Commander wraps its own part to the terminal, but
// not these.

export const generalHelp = `
Examples:
  tidemark info disk.qcow2
  tidemark map disk.qcow2 --bitmap monday --output json
  tidemark dump disk.qcow2 -o disk.raw
  tidemark bitmap --add disk.qcow2 tuesday
  tidemark bitmap --multi checkpoint.json
  tidemark plan backup --domain web --incremental monday
  tidemark checkpoint reconcile --domain web

Exit statuses:
  0    done; nothing wrong found
  1    error: it could not be done; nothing was changed
  2    found wrong (checkpoint reconcile)
  4    cannot tell: the domain runs, its bitmaps are in QEMU's memory (plan)
  10   some disks need a full backup (plan)
  11   every disk needs a full backup (plan)
  63   the image uses something that is not supported
  64   usage error
  130  interrupted
Each command's --help has examples.`

export const infoHelp = `
Works on images that QEMU refuses to open, and says what is wrong with them.
Never reads bitmaps' bodies unless --count is given.

Examples:
  tidemark info disk.qcow2
  tidemark info --count --output json disk.qcow2
  tidemark info --backing-chain overlay.qcow2

Exit statuses:
  0    shown
  1    error: it cannot be read, or a writer holds it (see -U)
  63   shown as far as it goes: a feature or a format that is not supported
  64   usage error`

export const mapHelp = `
Without --bitmap it tells what qemu-img map tells, in its JSON: what of the disk
is stored, in which image of the chain (depth) and at which offset.

With --bitmap: a bitmap stands for a set of bytes, its dirty granules clipped to
the disk. Operations are on those sets and exact, whatever the granularities.
JSON is nbdinfo's: the whole disk, neighbours merged, type 0 clean and 1 dirty.
A bitmap is looked for in FILE alone, never silently in a backing file.

Examples:
  tidemark map overlay.qcow2
  tidemark map disk.qcow2 --bitmap monday
  tidemark map disk.qcow2 --bitmap monday --bitmap tuesday --op difference
  tidemark map disk.qcow2 --bitmap monday --with-data --dirty
  tidemark map overlay.qcow2 --bitmap monday --backing-chain --granularity 1M
  tidemark map top.qcow2 --bitmap b0 --bitmap b0@base.qcow2 --format ndjson

Exit statuses:
  0    done
  1    error: no such bitmap or snapshot; in-use, stale (see --force) or
       corrupt; a backing file that may not be opened; or a writer holds an
       image (see -U)
  63   the image uses something that is not supported
  64   usage error
  130  interrupted`

export const dumpHelp = `
Data keep their place: OUT has the disk's size, with holes for zeros and for
all that --offset, --length or --bitmap leave out. OUT is made beside its place
and takes it when it is whole: a dump that fails, or is interrupted, leaves
nothing behind and what was there as it was. A block device is written in place.
To stdout go the bytes from --offset on, --length of them, zeros included, also
where --bitmap leaves data out.

A passphrase is the bytes of its file, as for QEMU's secrets; if they open
nothing and end with a newline, it is tried without. It is asked for only if
encrypted data are read.

Examples:
  tidemark dump disk.qcow2 -o disk.raw
  tidemark dump overlay.qcow2 --bitmap monday -o changes.raw
  tidemark dump disk.qcow2 --offset 1M --length 512 | hexdump -C
  tidemark dump disk.qcow2 --snapshot before-upgrade -o /dev/vg/restored
  tidemark dump secret.qcow2 --passphrase-file key -o secret.raw
  tidemark dump strange.qcow2 --allow /srv/images -o strange.raw

Exit statuses:
  0    done
  1    error: corrupt data, a wrong passphrase, no room, no such bitmap or
       snapshot, a backing file that may not be opened; or a writer holds an
       image (see -U)
  63   the image uses something that is not supported
  64   usage error
  130  interrupted`

export const bitmapHelp = `
Takes what qemu-img bitmap takes. All the actions happen, in the order given, or
none does. Whatever ends it, and when, every bitmap of the image is as it was or
as it is to be; those not named are not touched. Meanwhile the image is locked
as QEMU locks it: one that a VM uses is refused.

NAME and SOURCE are the bitmaps that have these names by then: after --rename
NAME is free for --add.

With --multi the images and their actions are in a file, and all of them happen
in all images, or none does: a checkpoint over the disks of a domain. If that is
cut off by a crash, tidemark recover JOURNAL ends it. PLAN is
  {"images": [{"filename": "vda.qcow2", "actions": [
    {"action": "add", "name": "cp1", "granularity": 65536, "disabled": false},
    {"action": "disable", "name": "cp0"},
    {"action": "merge", "name": "all", "source": "cp0",
     "source-filename": "old.qcow2", "source-format": "qcow2"},
    {"action": "rename", "name": "a", "to": "b"}]}]}
and remove, clear, enable. What may be left out: granularity, disabled, source-
filename (else the image itself), source-format.

Examples:
  tidemark bitmap --add -g 64k disk.qcow2 monday
  tidemark bitmap --disable disk.qcow2 monday
  tidemark bitmap --add --merge monday --merge tuesday disk.qcow2 week
  tidemark bitmap --merge b0 -b overlay.qcow2 -F qcow2 base.qcow2 b0
  tidemark bitmap --disable --rename monday --add disk.qcow2 current
  tidemark bitmap --dry-run --remove disk.qcow2 monday
  tidemark bitmap --multi plan.json --journal /var/lib/web.journal
  echo '{"images": [{"filename": "vda.qcow2", "actions": [{"action": "add",
      "name": "cp1"}]}]}' | tidemark bitmap --multi - --dry-run

Exit statuses:
  0    done
  1    error: no such bitmap, or there is one already; in-use (inconsistent);
       an image that cannot be edited, or that others use; no lock, no space;
       a journal is there already. Nothing was changed, in no image
  63   the image uses something that is not supported
  64   usage error
  130  interrupted: all was done, which a warning says, or nothing was`

export const recoverHelp = `
JOURNAL is what tidemark bitmap --multi left behind when it was killed or the
machine stopped: .NAME.tidemark-journal beside its first image that is not in
/dev, unless it was given another name. Where all images were prepared the edit
is completed, else undone; then the journal is removed. The journal is not
believed: an image is written to only if it is itself in a state of that edit,
nobody else has written to it since, and all that it is to refer to is there and
sound. Where the images cannot go one way together nothing is touched, and it
says what each of them is. If this is cut off too, do it again.

Do it before a VM starts: what a VM has written to stays as it is, and the other
images may have to stay behind. Where JOURNAL is lost, qemu-img check -r leaks
FILE for each image keeps the bitmaps that it has, and it can be edited again.

Examples:
  tidemark recover --dry-run .vda.qcow2.tidemark-journal
  tidemark recover .vda.qcow2.tidemark-journal

Exit statuses:
  0    all images have their new bitmaps, or all the old ones; or the edit had
       not begun
  1    error: neither is possible; an image that others use; no such journal,
       or a damaged one. Nothing was changed; unless a disk failed meanwhile:
       then do it again
  64   usage error
  130  interrupted, when all was done`

export const planHelp = `
Examples:
  tidemark plan backup --domain web --incremental monday
  tidemark plan delete --domain web monday
  tidemark plan commit --domain web --disk vda --top 0 --base 1

Exit statuses: those of each command; see tidemark plan backup --help`

export const planBackupHelp = `
Where checkpoints come from: --domain NAME (libvirt's system folders, or
--libvirt-root DIR), or --domain-xml FILE with --checkpoint-dir DIR.
In the plan, 'mode' is what is safe; 'libvirt' is what libvirt itself would say
of an incremental backup.

Dialects: with libvirt since 6.6 each checkpoint's bitmap goes on recording
(independent); before, and in many scripts, only the newest does (chained), and
the changes are in all of them since the checkpoint together. Which it is shows
in the bitmaps' flags, on all disks of the domain; --dialect overrules that.

A grown disk's new area reads clean, and the metadata does not say how large a
disk was: where you know it, give --size-then TARGET=SIZE.

--what-if shows the plan as it is, and as it would be after the changes, made
one after the other; without --incremental since each checkpoint. The exit
status is that of what would be.

Several domains: --domain more than once, or --all. A table, or with --output
json {"plans": […], "errors": […]}; one domain's trouble stops no other.

Examples:
  tidemark plan backup --domain web --incremental monday
  tidemark plan backup --domain web --incremental monday --disk vda
  tidemark plan backup --domain web --incremental monday --output json
  tidemark plan backup --domain web --incremental monday --size-then vda=10G
  tidemark plan backup --domain web --incremental monday \\
      --what-if delete=tuesday --what-if commit=vda:0:1
  tidemark plan backup --all --incremental monday
  tidemark plan backup --domain-xml web.xml --checkpoint-dir checkpoints \\
      --incremental monday --map-source /var/lib/libvirt/images=/mnt/copy
  tidemark plan backup --domain web --incremental monday \\
      --format xml --target-dir /backup > backup.xml
  virsh backup-begin web backup.xml

Exit statuses:
  0    every disk incremental
  1    error; with --require-incremental also instead of 10 and 11; of several
       domains: none could be planned
  4    cannot tell: the domain runs, or a source cannot be read from here; of
       several domains: one of them could not be planned
  10   some disks need a full backup
  11   every disk needs a full backup
  64   usage error
Of several domains the worst: 1, else 4, else 11, 10 or 0 over all their disks.`
