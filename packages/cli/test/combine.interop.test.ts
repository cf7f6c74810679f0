import {
  type DirtyExtent,
  dirtyMap,
  needs,
  qemuImg,
  qemuIo,
  Random,
  type TempDir,
  tempDir,
} from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { tidemark, tidemarkError, tidemarkJson } from './cli.js'
import { type ByteSet, byteSet, combineAll, extentsOfSet, type Operation, union, widen } from './sets.js'

const peers = needs('qemu-img', 'qemu-io', 'qemu-nbd', 'nbdinfo')
/** No multiple of any granularity but 512. */
const SIZE = 48 * 2 ** 20 + 3 * 512
const granularities = { b9: 512, b12: 4096, b16: 65536, b20: 2 ** 20, b31: 2 ** 31 } as const
type Name = keyof typeof granularities
const names = Object.keys(granularities) as Name[]

/** An image whose bitmaps each saw other writes, with a base and another image of the same size. */
describe.skipIf(peers.skip)(`bitmaps combined are what the sets of their bytes are${peers.label}`, () => {
  let dir: TempDir
  let top: string
  let base: string
  let other: string
  const sets = new Map<string, ByteSet>()

  const make = async (file: string, seed: string, of: readonly Name[], backing?: string): Promise<void> => {
    const random = new Random(seed)
    await qemuImg.create(file, SIZE, { clusterSize: 4096, ...(backing && { backing }) })
    for (const name of of) {
      await qemuImg.bitmap('--add', '-g', String(granularities[name]), file, name)
      const offset = (): number => random.int(0, SIZE / 512 - 200) * 512
      const writes = Array.from({ length: 30 }, () => `write -q -P 1 ${offset()} ${random.int(1, 200) * 512}`)
      // All but the coarsest, which one write marks whole.
      if (name !== 'b31' || seed === 'base') await qemuIo(file, writes)
      await qemuImg.bitmap('--disable', file, name)
      sets.set(`${name}@${file}`, byteSet(await dirtyMap(file, name)))
    }
  }

  beforeAll(async () => {
    dir = tempDir()
    base = dir.file('base.qcow2')
    top = dir.file('top.qcow2')
    other = dir.file('an @ther.qcow2')
    await make(base, 'base', ['b9', 'b16', 'b31'])
    await make(top, 'top', names, base)
    await make(other, 'other', ['b12', 'b20'])
  }, 600_000)
  afterAll(() => dir?.remove())

  /** As arguments and as sets: a name of TOP, or NAME@FILE. */
  const operands = (list: readonly [Name, string][]): { args: string[]; sets: ByteSet[] } => ({
    args: list.flatMap(([name, file]) => ['--bitmap', file === top ? name : `${name}@${file}`]),
    sets: list.map(([name, file]) => sets.get(`${name}@${file}`)!),
  })
  const all = (): [Name, string][] => [
    ...names.map((name): [Name, string] => [name, top]),
    ['b9', base],
    ['b16', base],
    ['b12', other],
    ['b20', other],
  ]

  const random = new Random('combinations')
  const cases = (['union', 'intersection', 'difference', 'xor'] as const).flatMap(operation =>
    Array.from({ length: 8 }, (_, i): [Operation, number, number] => [operation, i, random.int(0, 2 ** 30)]),
  )
  it.each(cases)('%s %i', async (operation, i, seed) => {
    const draw = new Random(seed)
    const chosen = draw.shuffle(all()).slice(0, 2 + (i % 4))
    const { args, sets } = operands(chosen)
    const granularity = i % 2 === 0 ? undefined : 2 ** draw.int(9, 24)
    const wider = granularity === undefined ? [] : ['--granularity', String(granularity)]
    const exact = combineAll(sets, operation)
    const wanted = granularity === undefined ? exact : widen(exact, granularity, SIZE)
    const found = await tidemarkJson(['map', top, ...args, '--op', operation, ...wider])
    expect(found, `${args.join(' ')} ${wider.join(' ')}`).toEqual(extentsOfSet(wanted, SIZE))
  })

  it('one bitmap combined with itself', async () => {
    const map = (operation: string): Promise<DirtyExtent[]> =>
      tidemarkJson(['map', top, '--bitmap', 'b12', '--bitmap', 'b12', '--op', operation])
    const own = extentsOfSet(sets.get(`b12@${top}`)!, SIZE)
    const nothing = extentsOfSet([], SIZE)
    expect(await map('union')).toEqual(own)
    expect(await map('intersection')).toEqual(own)
    expect(await map('difference')).toEqual(nothing)
    expect(await map('xor')).toEqual(nothing)
  })

  it.each(['512', '64k', '1M', '2G', '65536', '4K'])('one bitmap at --granularity %s', async text => {
    const bytes = { '512': 512, '64k': 65536, '1M': 2 ** 20, '2G': 2 ** 31, '65536': 65536, '4K': 4096 }[
      text
    ]!
    const wanted = extentsOfSet(widen(sets.get(`b12@${top}`)!, bytes, SIZE), SIZE)
    expect(await tidemarkJson(['map', top, '--bitmap', 'b12', '--granularity', text])).toEqual(wanted)
  })

  it('--backing-chain unites a bitmap with its namesakes below', async () => {
    const wanted = union([sets.get(`b9@${top}`)!, sets.get(`b9@${base}`)!])
    const found = await tidemarkJson(['map', top, '--bitmap', 'b9', '--backing-chain'])
    expect(found).toEqual(extentsOfSet(wanted, SIZE))
    // Each operand is united down its chain before the operation.
    const sixteen = union([sets.get(`b16@${top}`)!, sets.get(`b16@${base}`)!])
    const args = ['map', top, '--bitmap', 'b9', '--bitmap', 'b16', '--op', 'difference', '--backing-chain']
    expect(await tidemarkJson(args)).toEqual(extentsOfSet(combineAll([wanted, sixteen], 'difference'), SIZE))
  })

  it('without --backing-chain it never looks below', async () => {
    const found = await tidemarkJson(['map', top, '--bitmap', 'b31'])
    expect(found).toEqual(extentsOfSet(sets.get(`b31@${top}`)!, SIZE))
    const { status, error } = await tidemarkError(['map', other, '--bitmap', 'b9'])
    expect({ status, code: error.code }).toEqual({ status: 1, code: 'bitmap-missing' })
  })

  it('--format ndjson is one extent a line, whatever --output says; --dirty leaves the clean ones out', async () => {
    const own = extentsOfSet(sets.get(`b12@${top}`)!, SIZE)
    const lines = own.map(extent => `${JSON.stringify(extent)}\n`)
    const args = ['map', top, '--bitmap', 'b12', '--format', 'ndjson']
    expect((await tidemark(args)).stdout).toBe(lines.join(''))
    expect((await tidemark([...args, '--output', 'json'])).stdout).toBe(lines.join(''))
    const dirty = (await tidemark([...args, '--dirty'])).stdout
    expect(dirty).toBe(lines.filter(line => line.includes('"type":1')).join(''))
    expect(await tidemarkJson(['map', top, '--bitmap', 'b12', '--dirty'])).toEqual(
      own.filter(({ type }) => type === 1),
    )
  })

  it('a table for people, with what it comes to', async () => {
    const set = sets.get(`b20@${top}`)!
    const { stdout, status } = await tidemark(['map', top, '--bitmap', 'b20'])
    expect(status).toBe(0)
    const rows = [...stdout.matchAll(/^ *(\d+) +(\d+) +(clean|dirty)$/gm)].map(
      ([, offset, length, state]) => ({
        offset: Number(offset),
        length: Number(length),
        type: state === 'dirty' ? 1 : 0,
        description: state,
      }),
    )
    expect(rows).toEqual(extentsOfSet(set, SIZE))
    expect(stdout).toMatch(/ dirty of 48 MiB \(.* %\) in \d+ extents?\n$/)
  })

  it('names of bitmaps with an @ come before other files', async () => {
    const file = dir.file('at.qcow2')
    await qemuImg.create(file, SIZE)
    await qemuImg.bitmap('--add', file, `b12@${top}`)
    expect(await tidemarkJson(['map', file, '--bitmap', `b12@${top}`])).toEqual(extentsOfSet([], SIZE))
  })

  it('bitmaps of disks of other sizes are refused', async () => {
    const small = dir.file('small.qcow2')
    await qemuImg.create(small, '1M')
    await qemuImg.bitmap('--add', small, 'b0')
    const { status, error } = await tidemarkError(['map', top, '--bitmap', 'b12', '--bitmap', `b0@${small}`])
    expect({ status, code: error.code }).toEqual({ status: 1, code: 'disk-size-differs' })
  })

  it('a gap in the chain is refused, and only with --force passed over', async () => {
    const between = dir.file('between.qcow2')
    const head = dir.file('head.qcow2')
    await qemuImg.create(between, SIZE, { backing: base })
    await qemuImg.create(head, SIZE, { backing: between })
    await qemuImg.bitmap('--add', head, 'b9')
    const args = ['map', head, '--bitmap', 'b9', '--backing-chain']
    const { status, error } = await tidemarkError(args)
    expect({ status, code: error.code }).toEqual({ status: 1, code: 'bitmap-gap' })
    const forced = await tidemark([...args, '--force', '--output', 'json'])
    expect(forced.status).toBe(0)
    expect(forced.stderr).toMatch(/between.qcow2 lacks bitmap 'b9'/)
    expect(JSON.parse(forced.stdout)).toEqual(extentsOfSet(sets.get(`b9@${base}`)!, SIZE))
  })
})
