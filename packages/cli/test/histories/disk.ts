import { rmSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { qemuImg } from '@tidemark/testkit'

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
  /** Bitmap → the disk each time that somebody cleared it, in whichever layer. */
  readonly cleared = new Map<string, Buffer[]>()
  /** Bitmap → the image and the disk each time that somebody removed it. */
  readonly removed = new Map<string, { readonly file: string; readonly content: Buffer }[]>()
  /** Names of bitmaps that somebody disabled. */
  readonly disabled = new Set<string>()
  /** Checkpoint → the smallest size that the disk was cut to since, in bytes. */
  readonly cutTo = new Map<string, number>()

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

  clearedNow(bitmap: string): void {
    this.cleared.set(bitmap, [...(this.cleared.get(bitmap) ?? []), Buffer.from(this.content)])
  }

  removedNow(bitmap: string, file: string): void {
    const content = Buffer.from(this.content)
    this.removed.set(bitmap, [...(this.removed.get(bitmap) ?? []), { file, content }])
  }

  /** @param content what the guest sees now, of another size than before */
  resized(content: Buffer): void {
    if (content.length < this.size) {
      for (const name of this.moments.keys()) {
        this.cutTo.set(name, Math.min(content.length, this.cutTo.get(name) ?? content.length))
      }
    }
    this.content = content
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
