// What the real QEMU makes of a mutant, beside what we make of it.
import { readFileSync, rmSync } from 'node:fs'
import { RunError, run, type TempDir } from '@tidemark/testkit'
import type { FuzzCase } from './cases.js'
import { writeFiles } from './corpus.js'
import type { Verdict } from './exercise.js'

export type Theirs = { readonly bytes: Uint8Array } | { readonly refused: string }

/**
 * The disk as QEMU reads it, by `qemu-img convert`. Files of the mutant lie in the folder that it runs in.
 *
 * @param snapshot the id of one with the disk's size: of others QEMU gives so many bytes all the same
 */
export async function readWithQemu(fuzzed: FuzzCase, dir: TempDir, snapshot?: string): Promise<Theirs> {
  const files = new Map([...fuzzed.files].map(([name, mutant]) => [name, mutant.bytes()]))
  writeFiles(dir, files)
  const out = dir.file('out.raw')
  const { passphrase } = fuzzed
  const of = snapshot === undefined ? [] : ['-l', `snapshot.id=${snapshot}`]
  const from =
    passphrase === undefined
      ? ['-f', 'qcow2', 'top.qcow2']
      : [
          ...['--object', `secret,id=k,data=${passphrase}`],
          ...['--image-opts', 'driver=qcow2,file.filename=top.qcow2,encrypt.key-secret=k'],
        ]
  try {
    await run('qemu-img', ['convert', '-O', 'raw', ...of, ...from, out], { cwd: dir.path, timeout: 5_000 })
    return { bytes: readFileSync(out) }
  } catch (error) {
    if (!(error instanceof RunError)) throw error
    const { stderr, signal } = error.result
    return { refused: signal === null ? stderr.trim() : `${signal} ${stderr}` }
  } finally {
    rmSync(out, { force: true })
    for (const name of files.keys()) rmSync(dir.file(name))
  }
}

/** Agreement, or which registered difference it is; undefined for one that nobody has looked at. */
export function compare(ours: Verdict, theirs: Theirs): string | undefined {
  if (ours.bytes !== undefined && 'bytes' in theirs) {
    // Never to be explained: a backup of other bytes.
    return Buffer.compare(ours.bytes, theirs.bytes) === 0 ? 'both read' : undefined
  }
  if (ours.bytes === undefined && 'refused' in theirs) return 'both refuse'
  if ('refused' in theirs) return weRead.find(([words]) => words.test(theirs.refused))?.[1]
  return ours.error && weRefuse.find(([words]) => words.test(ours.error!.message))?.[1]
}

/** QEMU's words for what it refuses and we read; and why. */
const weRead: readonly [RegExp, string][] = [
  [/bitmap/i, 'bitmaps have nothing to do with guest data: what is wrong with them does not hide it'],
  [/^(?!.*Failed to load).*snapshot/is, 'the snapshot table is read only where a snapshot is asked for'],
]

/** Our words for what QEMU reads. */
const weRefuse: readonly [RegExp, string][] = [
  [/expected reserved bits clear/, 'reserved bits: QEMU takes them for clear'],
  [
    /expected .* within the (data )?file|found the end of the file/,
    'past the end of the file: zeros in QEMU',
  ],
  [/header pointer, length/, 'a LUKS area past the end of the file: QEMU takes its offset alone'],
  [/which holds metadata|not other metadata/, 'metadata, which QEMU gives to the guest'],
  [/no subclusters of a compressed cluster/, 'reserved bits: QEMU takes them for clear'],
  [/relative to the folder that QEMU runs in/, 'which folder that is nobody knows here'],
  [/does not say which format/, 'a format is looked for only where the caller allows it'],
  [/the chain is circular/, 'an image that is its own backing file, as raw data'],
]
