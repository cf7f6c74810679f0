// What stands below the options of the commands of checkpoint: lines of at most 80 columns, as in help.ts.

const where = `Where checkpoints come from: --domain NAME (libvirt's system folders, or
--libvirt-root DIR), or --domain-xml FILE with --checkpoint-dir DIR.`

export const checkpointHelp = `
Examples:
  tidemark checkpoint list --domain web --tree
  tidemark checkpoint show --domain web monday
  tidemark checkpoint reconcile --domain web
  tidemark checkpoint redefine --domain web -o web-checkpoints

Exit statuses: those of each command; see tidemark checkpoint list --help`

export const checkpointListHelp = `
A checkpoint is usable for a disk where a backup since it could be incremental:
the verdict of tidemark plan backup. Without --bodies it is judged from metadata
alone. Times are UTC. The current checkpoint is the next one's parent, as
libvirt finds it when it starts: the end of the one line, if there is one line.
${where}

Examples:
  tidemark checkpoint list --domain web
  tidemark checkpoint list --domain web --tree --bodies
  tidemark checkpoint list --domain-xml web.xml --checkpoint-dir checkpoints \\
      --map-source /var/lib/libvirt/images=/mnt/copy --output json

Exit statuses:
  0    shown, whatever state they are in
  1    error
  64   usage error`

export const checkpointShowHelp = `
For each disk of the domain: what it was at the checkpoint and what it is now,
the checkpoint's bitmap in each layer, and what a backup since it would be.
${where}

Examples:
  tidemark checkpoint show --domain web monday
  tidemark checkpoint show --domain web monday --count --output json

Exit statuses:
  0    shown, whatever state it is in
  1    error: there is no such checkpoint
  64   usage error`

export const checkpointReconcileHelp = `
Finds bitmaps without checkpoints, checkpoints without bitmaps, leftovers of
jobs and of other tools, broken trees of checkpoints. Changes nothing: with each
goes the way out, as commands for a shell, often several to choose from. The
first loses least. Files that commands make are made in the current folder.
docs/checkpoints.md tells of every finding.
${where}

Examples:
  tidemark checkpoint reconcile --domain web
  tidemark checkpoint reconcile --domain web --output json |
      jq -r '.findings[0].commands[]' | sh -e

Exit statuses:
  0    nothing is wrong; there may be something to know
  1    error
  2    something is wrong: an error or a warning was found
  4    cannot tell: the domain runs, its bitmaps are in QEMU's memory. What is
       certain all the same is shown
  64   usage error`

export const checkpointRedefineHelp = `
With metadata (libvirt's, or copies in another --checkpoint-dir) checkpoints are
written as they were. Of bitmaps without metadata checkpoints are made, ordered
by what their bits show: an older bitmap holds all that a newer one does. How
sure that is is told: certain, likely (names or layers tell), or a guess.

Without -o it is shown, and nothing is written. With -o each goes to
DIR/NAME.xml, all of them or none; on stdout are the virsh commands, parents
first, which work on running and on inactive domains.
Files are for you alone (0600): a domain's XML can hold passwords. What is shown
never has it. A checkpoint made of bitmaps has no <domain>, and where its time
is not known, the earliest that goes with its neighbours'.
${where}

Examples:
  tidemark checkpoint redefine --domain web
  tidemark checkpoint redefine --domain web -o web-checkpoints | sh -e
  tidemark checkpoint redefine --domain web --bitmap monday -o adopted
  tidemark checkpoint redefine --domain-xml web.xml --checkpoint-dir old -o new

Exit statuses:
  0    done
  1    error: nothing was written
  4    done, but the place of some checkpoint is only a guess: look before you
       run the commands
  64   usage error`
