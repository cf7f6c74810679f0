// Images that the real QEMU made, each with what the browser has to find in it.
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import {
  derivingKeys,
  dirtyMap,
  openArgsOf,
  qemuImg,
  qemuIo,
  Random,
  run,
  runQemuIo,
} from '@tidemark/testkit'
import type { Info } from './metadata.js'
import type { Disk } from './reading.js'

export interface MadeImage {
  /** All in one folder, the image that is to be opened first. */
  readonly files: readonly string[]
  readonly bitmap?: string
  readonly passphrase?: string
}

/** What programs that share no code with ours say of an image, in the words of the page. */
export interface Answers {
  /** `qemu-img info`. */
  readonly info: Info
  /** `qemu-img map`, and the SHA-256 of `qemu-img convert -O raw`. */
  readonly disk: Disk
  /** nbdinfo's map of the bitmap, the dirty extents as start, end, start, end, … */
  readonly dirty: readonly number[] | undefined
}

/** Not a multiple of any cluster size. */
const SIZE = 3 * 2 ** 20 + 512
const PASSPHRASE = 'größe-日本'

/** Text that compresses, noise that does not, and zeros. */
function content(seed: string): Uint8Array {
  const random = new Random(seed)
  const bytes = new Uint8Array(SIZE)
  for (let at = 0; at < SIZE - 100_000; at += random.int(20_000, 200_000)) {
    const length = random.int(1, 100_000)
    if (random.bool(0.5)) bytes.set(random.bytes(length), at)
    else for (let i = 0; i < length; i++) bytes[at + i] = (at + i * i) >> 9
  }
  return bytes
}

/** A folder with one image in it, made from a raw file of `content`. */
async function converted(
  dir: string,
  args: readonly string[],
): Promise<{ file: string; at: (name: string) => string }> {
  const at = (name: string) => join(dir, name)
  mkdirSync(dir)
  writeFileSync(at('content.raw'), content(basename(dir)))
  const file = at('disk.qcow2')
  const convert = ['convert', '-f', 'raw', '-O', 'qcow2', ...args, at('content.raw'), file]
  await derivingKeys(() => run('qemu-img', convert))
  rmSync(at('content.raw'))
  return { file, at }
}

async function withBitmap(dir: string, args: readonly string[]): Promise<MadeImage> {
  const { file } = await converted(dir, args)
  await qemuImg.bitmap('--add', '-g', '4k', file, 'monday')
  await qemuIo(file, ['write -P 7 70k 9k', 'write -P 8 1M 1', 'write -z 2M 300k', 'write -P 9 3M 512'])
  return { files: [file], bitmap: 'monday' }
}

export const makers: Readonly<Record<string, (dir: string) => Promise<MadeImage>>> = {
  plain: dir => withBitmap(dir, []),
  'compressed by zlib': dir => withBitmap(dir, ['-c']),
  'compressed by zstd': dir => withBitmap(dir, ['-c', '-o', 'compression_type=zstd']),
  'extended L2 entries': async dir => {
    const made = await withBitmap(dir, ['-o', 'extended_l2=on,cluster_size=128k'])
    await qemuIo(made.files[0]!, ['discard 512k 128k', 'write -P 3 516k 4k', 'write -z 560k 8k'])
    return made
  },
  LUKS: async dir => {
    const key = join(dir, 'passphrase')
    const { file } = await converted(dir, [
      ...['-o', 'encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10'],
      ...['--object', `secret,id=key,data=${PASSPHRASE}`],
    ])
    writeFileSync(key, PASSPHRASE)
    await runQemuIo(openArgsOf(file, [{ encryption: 'aes-256' }], key), ['write -P 7 70k 9k'])
    return { files: [file], passphrase: PASSPHRASE }
  },
  'a backing chain of three, the last one raw': async dir => {
    const { file: middle, at } = await converted(dir, ['-c'])
    writeFileSync(at('base.raw'), content('base'))
    await qemuIo(middle, ['discard 1M 512k'])
    await run('qemu-img', ['rebase', '-u', '-b', 'base.raw', '-F', 'raw', middle])
    const top = at('top.qcow2')
    await qemuImg.create(top, undefined, { backing: 'disk.qcow2', clusterSize: 4096 })
    await qemuImg.bitmap('--add', '-g', '64k', top, 'tuesday')
    await qemuIo(top, ['write -P 7 70k 9k', 'write -z 2M 64k', 'write -P 9 3M 512'])
    return { files: [top, middle, at('base.raw')], bitmap: 'tuesday' }
  },
  'an external data file': async dir => {
    const { file, at } = await converted(dir, ['-o', `data_file=${dir}/disk.data`])
    return { files: [file, at('disk.data')] }
  },
}

/** Makes an image in a folder of its own, and asks the others. */
export async function makeImage(title: string, dir: string): Promise<MadeImage & Answers> {
  const image = await makers[title]!(dir)
  for (const file of image.files) fillHoles(file)
  return { ...image, info: await infoOf(image), disk: await diskOf(image), dirty: await dirtyOf(image) }
}

/** A Blob knows of no holes, so that QEMU must not either. */
function fillHoles(file: string): void {
  const bytes = readFileSync(file)
  rmSync(file)
  writeFileSync(file, bytes)
}

async function infoOf({ files: [file] }: MadeImage): Promise<Info> {
  const image = await qemuImg.info(file!)
  const data = image['format-specific']!.data
  return {
    virtualSize: image['virtual-size'],
    clusterSize: image['cluster-size']!,
    compat: data.compat,
    compressionType: `${data['compression-type']}`,
    extendedL2: data['extended-l2'] === true,
    encrypted: image.encrypted === true,
    backingFile: image['backing-filename'],
    backingFormat: image['backing-filename-format'],
    bitmaps: data.bitmaps?.map(({ name, granularity }) => ({ name, granularity })),
    findings: [],
  }
}

async function diskOf({ files: [file], passphrase }: MadeImage): Promise<Disk> {
  const encryption = passphrase === undefined ? 'none' : 'aes-256'
  const args = openArgsOf(file!, [{ encryption }], join(file!, '../passphrase'))
  const map: qemuImg.MapExtent[] = JSON.parse(
    (await run('qemu-img', ['map', '--output=json', ...args])).stdout,
  )
  const raw = `${file}.converted`
  await run('qemu-img', ['convert', '-O', 'raw', ...args, raw])
  const bytes = readFileSync(raw)
  rmSync(raw)
  return {
    size: bytes.byteLength,
    depth: (await qemuImg.infoChain(file!)).length,
    extents: map.map(({ start, length, depth, present, zero, data, offset }) => {
      return { start, length, depth, present, zero, data, offset }
    }),
    sha256: createHash('sha256').update(bytes).digest('hex'),
  }
}

async function dirtyOf({ files: [file], bitmap }: MadeImage): Promise<number[] | undefined> {
  if (bitmap === undefined) return undefined
  const extents = await dirtyMap(file!, bitmap)
  const dirty = extents.filter(({ type }) => type === 1)
  return dirty.flatMap(({ offset, length }) => [offset, offset + length])
}
