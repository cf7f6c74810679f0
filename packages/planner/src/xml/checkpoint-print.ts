import type { CheckpointDraft } from '../facts.js'
import { printXml } from './print.js'

export interface PrintCheckpointOptions {
  /** With the embedded `<domain>`, which may hold passwords: for files that libvirt reads, never for people. */
  readonly withDomain?: boolean
  /** Begins with a comment that says who wrote it, as libvirt's own files do. */
  readonly comment?: boolean
}

const COMMENT = `<!--
Written by tidemark, for virsh checkpoint-create with its option redefine. libvirt keeps a file of
its own: changing this one changes nothing there.
-->

`

/**
 * A `<domaincheckpoint>` to the letter as libvirt prints it. What is not there is left out: nothing is filled in
 * (see `completeCheckpoint` and `redefineCheckpoint`).
 *
 * @throws {XmlError} a text holds a character that XML cannot express
 * @example
 * ```ts
 * writeFileSync('cp1.xml', printCheckpoint(checkpoint, { withDomain: true, comment: true }), { mode: 0o600 })
 * ```
 */
export function printCheckpoint(checkpoint: CheckpointDraft, options: PrintCheckpointOptions = {}): string {
  const { name, description, parent, creationTime, disks = [], domainXml } = checkpoint
  const leaf = (element: string, text: string | number | undefined) =>
    text === undefined ? undefined : { name: element, text: String(text) }
  const document = printXml({
    name: 'domaincheckpoint',
    children: [
      leaf('name', name),
      leaf('description', description),
      parent === undefined ? undefined : { name: 'parent', children: [leaf('name', parent)] },
      leaf('creationTime', creationTime),
      disks.length === 0
        ? undefined
        : {
            name: 'disks',
            children: disks.map(disk => ({
              name: 'disk',
              attributes: {
                name: disk.name,
                checkpoint: disk.checkpoint,
                bitmap: disk.checkpoint === 'bitmap' ? disk.bitmap : undefined,
                size: disk.checkpoint === 'bitmap' ? disk.size?.toString() : undefined,
              },
            })),
          },
      options.withDomain ? domainXml : undefined,
    ],
  })
  return options.comment ? COMMENT + document : document
}
