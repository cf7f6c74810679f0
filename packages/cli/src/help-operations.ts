// What stands below the options of the plans of operations: lines of at most 80 columns, as in help.ts.

const where = `Where checkpoints come from: --domain NAME (libvirt's system folders, or
--libvirt-root DIR), or --domain-xml FILE with --checkpoint-dir DIR.`

const formats = `--format qmp prints what to tell a running QEMU: name its nodes vda-layer0,
vda-layer1, … and their files vda-layer0-file, …, or replace those names. Each
command's id says when it is due.`

const statuses = `Exit statuses:
  0    planned; with --apply: done
  1    error, or it cannot be done: nothing was changed
  4    cannot tell: the domain runs, or a source cannot be read from here
  64   usage error
  130  interrupted: nothing was done, or all, which a warning says`

export const planDeleteHelp = `
Independent bitmaps (libvirt 6.6 and later): the checkpoint's is removed in every
layer that has it. Chained ones: its marks first go into the bitmap of the
checkpoint before; if it was the newest, that one records again.
One disk without the bitmap, and nothing can be deleted: as in libvirt.

--apply changes the bitmaps of all disks and layers, or none. The metadata are
libvirt's: the virsh command that removes them is printed.
${where}
${formats}

Examples:
  tidemark plan delete --domain web monday
  tidemark plan delete --domain web monday --dry-run
  tidemark plan delete --domain web monday --apply
  tidemark plan delete --domain web monday --format sh | sh -e

${statuses}`

export const planCommitHelp = `
The bitmaps of the layers that go are added to those of the base; bitmaps that
it lacks are made. qemu-img commit alone would lose these.

--apply changes the bitmaps, and prints the qemu-img command for the data: run
it next. Till then the base's bitmaps mark too much, which does no harm.
${where}
${formats}

Examples:
  tidemark plan commit --domain web --disk vda --top 0 --base 1
  tidemark plan commit --domain web --disk vda --top 2 --base /images/base.qcow2
  tidemark plan commit --domain web --disk vda --top 0 --base 1 --format sh

${statuses}`

export const planPullHelp = `
The bitmaps of the layers that are pulled up are added to the top's. A broken
bitmap that would look sound afterwards is removed.

--apply changes the bitmaps, and prints the qemu-img command for the data. Till
it is run the top's bitmaps mark too much, which does no harm.
${where}
${formats}

Examples:
  tidemark plan pull --domain web --disk vda
  tidemark plan pull --domain web --disk vda --base 2 --format sh | sh -e

${statuses}`

export const planCopyHelp = `
Each bitmap is united over the layers that are copied. A shallow copy keeps the
layers below, and their bitmaps. --format sh makes the copy, and its bitmaps
after it: a copy without a bitmap is never taken for one with it.
${where}
${formats}

Examples:
  tidemark plan copy --domain web --disk vda --target /new/web.qcow2
  tidemark plan copy --domain web --disk vda --target /new/web.qcow2 --shallow \\
      --format sh | sh -e

${statuses}`

export const planSnapshotHelp = `
Each bitmap of the top that records is made again on the overlay, all clear.
--format sh makes the overlay, and its bitmaps after it.
${where}
${formats}

Examples:
  tidemark plan snapshot --domain web
  tidemark plan snapshot --domain web --disk vda=/images/web.s1.qcow2 \\
      --format sh | sh -e

${statuses}`
