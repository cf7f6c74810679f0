import { type RunResult, run } from './run.js'

/** `qemu-img create`'s choices; what is left out is QEMU's default. Format qcow2 unless told. */
export interface CreateOptions {
  format?: string
  clusterSize?: number
  /** `0.10` (version 2) or `1.1` (version 3). */
  compat?: '0.10' | '1.1'
  refcountBits?: number
  lazyRefcounts?: boolean
  extendedL2?: boolean
  compressionType?: 'zlib' | 'zstd'
  dataFile?: string
  dataFileRaw?: boolean
  preallocation?: 'off' | 'metadata' | 'falloc' | 'full'
  backing?: string
  backingFormat?: string
  /** `--object` and further `-o` texts, for what has no name here (LUKS). */
  objects?: readonly string[]
  options?: readonly string[]
}

const onOff = (value: boolean | undefined): string | undefined =>
  value === undefined ? undefined : value ? 'on' : 'off'

/** Commas separate options for QEMU; in a value each is written twice. */
const escaped = (value: string): string => value.replaceAll(',', ',,')

/**
 * `qemu-img create`. The size may be left out where a backing file gives it.
 *
 * @param size bytes, or with qemu-img's suffix.
 */
export async function create(
  file: string,
  size?: number | string,
  options: CreateOptions = {},
): Promise<void> {
  const fields: [string, string | number | undefined][] = [
    ['cluster_size', options.clusterSize],
    ['compat', options.compat],
    ['refcount_bits', options.refcountBits],
    ['lazy_refcounts', onOff(options.lazyRefcounts)],
    ['extended_l2', onOff(options.extendedL2)],
    ['compression_type', options.compressionType],
    ['data_file', options.dataFile],
    ['data_file_raw', onOff(options.dataFileRaw)],
    ['preallocation', options.preallocation],
    ['backing_file', options.backing],
    ['backing_fmt', options.backing === undefined ? undefined : (options.backingFormat ?? 'qcow2')],
  ]
  const args = ['create', '-q', '-f', options.format ?? 'qcow2']
  for (const object of options.objects ?? []) args.push('--object', object)
  for (const [key, value] of fields)
    if (value !== undefined) args.push('-o', `${key}=${escaped(String(value))}`)
  for (const option of options.options ?? []) args.push('-o', option)
  args.push('--', file)
  if (size !== undefined) args.push(String(size))
  await run('qemu-img', args)
}

/** The part of `qemu-img info --output=json` that tests read; all other keys are there too. */
export interface QemuImgInfo {
  filename: string
  format: string
  'virtual-size': number
  'cluster-size'?: number
  'backing-filename'?: string
  'full-backing-filename'?: string
  'backing-filename-format'?: string
  'format-specific'?: { type: string; data: QemuImgQcow2Info }
  [key: string]: unknown
}

/** `format-specific.data` of a qcow2 image. */
export interface QemuImgQcow2Info {
  compat: string
  'refcount-bits': number
  corrupt?: boolean
  bitmaps?: { name: string; granularity: number; flags: ('auto' | 'in-use')[] }[]
  [key: string]: unknown
}

/** `forceShare` is `-U`: look although a writer has the image. */
export interface InfoOptions {
  forceShare?: boolean
  format?: string
}

const lookArgs = (options: InfoOptions): string[] => [
  ...(options.forceShare ? ['-U'] : []),
  ...(options.format === undefined ? [] : ['-f', options.format]),
]

/** `qemu-img info` of one image. */
export async function info(file: string, options: InfoOptions = {}): Promise<QemuImgInfo> {
  const { stdout } = await run('qemu-img', ['info', '--output=json', ...lookArgs(options), '--', file])
  return JSON.parse(stdout)
}

/** `qemu-img info --backing-chain`: the image and all below it, top first. */
export async function infoChain(file: string, options: InfoOptions = {}): Promise<QemuImgInfo[]> {
  const args = ['info', '--output=json', '--backing-chain', ...lookArgs(options), '--', file]
  return JSON.parse((await run('qemu-img', args)).stdout)
}

/** `qemu-img check --output=json` with its exit status: 0 ok, 2 corruption, 3 leaks. */
export interface QemuImgCheck {
  status: number
  corruptions: number
  leaks: number
  'check-errors': number
  'image-end-offset'?: number
  'total-clusters'?: number
  'allocated-clusters'?: number
  [key: string]: unknown
}

/**
 * `qemu-img check`. Corruption and leaks are an answer, not a failure.
 *
 * @throws RunError when the image can't be opened (1) or checked (63).
 */
export async function check(file: string, repair?: 'leaks' | 'all'): Promise<QemuImgCheck> {
  const repairArgs = repair === undefined ? [] : ['-r', repair]
  const args = ['check', '--output=json', ...repairArgs, '--', file]
  const { stdout, status } = await run('qemu-img', args, { accept: [0, 2, 3] })
  // Keys of no errors are left out by QEMU.
  return { corruptions: 0, leaks: 0, ...JSON.parse(stdout), status }
}

/** True where both hold the same guest data. `strict` (`-s`) also wants the same size and
 * the same sectors allocated. */
export async function compare(a: string, b: string, options: { strict?: boolean } = {}): Promise<boolean> {
  const args = ['compare', '-q', ...(options.strict ? ['-s'] : []), a, b]
  return (await run('qemu-img', args, { accept: [0, 1] })).status === 0
}

/** `qemu-img convert`, by default to raw. Further arguments go before the file names. */
export async function convert(
  from: string,
  to: string,
  options: { to?: string; args?: readonly string[] } = {},
): Promise<void> {
  await run('qemu-img', ['convert', '-O', options.to ?? 'raw', ...(options.args ?? []), from, to])
}

/** One piece of `qemu-img map --output=json`. */
export interface MapExtent {
  start: number
  length: number
  depth: number
  present: boolean
  zero: boolean
  data: boolean
  compressed?: boolean
  offset?: number
}

/** `qemu-img map --output=json`. */
export async function map(file: string): Promise<MapExtent[]> {
  return JSON.parse((await run('qemu-img', ['map', '--output=json', '--', file])).stdout)
}

/**
 * `qemu-img bitmap` with these arguments, file and bitmap name among them.
 *
 * @example
 * await qemuImg.bitmap('--add', '-g', '64k', file, 'b0')
 */
export async function bitmap(...args: readonly string[]): Promise<RunResult> {
  return await run('qemu-img', ['bitmap', ...args])
}

/** A name by which every QEMU program opens a qcow2 image without its backing file. */
export function withoutBacking(file: string): string {
  return `json:${JSON.stringify({ driver: 'qcow2', backing: null, file: { driver: 'file', filename: file } })}`
}

/** `qemu-img snapshot` (internal snapshots) with these arguments. */
export async function snapshot(...args: readonly string[]): Promise<RunResult> {
  return await run('qemu-img', ['snapshot', ...args])
}

/** `qemu-img resize`; shrinking is allowed. */
export async function resize(file: string, size: number | string): Promise<void> {
  await run('qemu-img', ['resize', '-q', '-f', 'qcow2', '--shrink', file, String(size)])
}
