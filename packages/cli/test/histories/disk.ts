import { rmSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { qemuImg } from '@tidemark/testkit'

/** What was done to a disk that no bitmap of it tells (see known.ts). */
export type Damage = 'cleared' | 'cut' | 'cut-and-grown' | 'cut-and-merged' | 'disabled'

/** A disk when a checkpoint took it in. */
export interface Moment {
  readonly content: Buffer
}

/** A disk of a history, plugged in or not, with all that its guest ever wrote in a buffer. */
export class Disk {
  readonly id: string
  readonly format: 'qcow2' | 'raw'
  /** Where it is plugged in. */
  target: string | undefined
  /** The images, top first. */
  files: readonly string[]
  /** What the guest sees. */
  content: Buffer
  /** Checkpoint → the disk then, if it was plugged in and taken in. */
  readonly moments = new Map<string, Moment>()
  readonly damage = new Map<string, Set<Damage>>()

  constructor(id: string, format: Disk['format'], file: string, size: number) {
    this.id = id
    this.format = format
    this.files = [file]
    this.content = Buffer.alloc(size)
  }

  get top(): string {
    return this.files[0]!
  }

  get size(): number {
    return this.content.length
  }

  harm(checkpoints: Iterable<string>, damage: Damage): void {
    for (const name of checkpoints) {
      this.damage.set(name, new Set([...(this.damage.get(name) ?? []), damage]))
    }
  }

  isHarmed(checkpoint: string, damage: Damage): boolean {
    return this.damage.get(checkpoint)?.has(damage) ?? false
  }

  /** The new area reads as zeros, and so does what was cut off before: no bitmap has it. */
  resized(content: Buffer): void {
    const grown = content.length > this.size
    const was = this.content
    this.content = content
    if (content.length < was.length) this.harm(this.moments.keys(), 'cut')
    if (!grown) return
    for (const name of this.moments.keys()) if (this.isHarmed(name, 'cut')) this.harm([name], 'cut-and-grown')
  }
}

/** What an image shows to a guest, by qemu-img. `shared`: a QEMU holds it, and has flushed what it knows. */
export async function contentOf(
  { top, format }: Pick<Disk, 'top' | 'format'>,
  options: { readonly shared?: boolean } = {},
): Promise<Buffer> {
  const raw = `${top}.content`
  try {
    await qemuImg.convert(top, raw, { args: [...(options.shared ? ['-U'] : []), '-f', format] })
    return await readFile(raw)
  } finally {
    rmSync(raw, { force: true })
  }
}
