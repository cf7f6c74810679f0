import {
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import {
  type DirtyExtent,
  mergedExtents,
  needs,
  qcow2Blockdev,
  qemuImg,
  qemuIo,
  run,
  StorageDaemon,
  type TempDir,
  tempDir,
} from '@tidemark/testkit'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { plainEnv, tidemark, tidemarkJson } from './cli.js'
import { top } from './webshop.js'

interface Plan {
  readonly dialect: string
  readonly 'dialect-evidence': { readonly source: string; readonly pattern: string }
  readonly disks: readonly {
    readonly mode: string
    readonly libvirt: string
    readonly 'dirty-bytes': number
    readonly merge: readonly { readonly layer: number; readonly filename: string; readonly bitmap: string }[]
  }[]
}

const SIZE = 8 * 2 ** 20
const peers = needs('qemu-img', 'qemu-io', 'qemu-nbd', 'nbdinfo', 'qemu-storage-daemon')

/**
 * A domain's disk in a dialect, made by QEMU: cp1, writes, an external snapshot, writes, cp2, writes, cp3, writes. Of
 * each checkpoint a raw copy is kept: the backup that a restore begins with.
 */
class History {
  readonly #dir: TempDir
  readonly #dialect: 'independent' | 'chained'
  readonly #layers: string[]
  readonly #checkpoints: string[] = []
  #pattern = 1

  constructor(dir: TempDir, dialect: 'independent' | 'chained') {
    this.#dir = dir
    this.#dialect = dialect
    this.#layers = [dir.file('base.qcow2')]
    mkdirSync(dir.file('checkpoints'))
  }

  async make(): Promise<this> {
    await qemuImg.create(this.#layers[0]!, SIZE, { clusterSize: 16384 })
    await this.#write(0, 6)
    await this.#checkpoint('cp1')
    await this.#write(1, 2)
    await this.#snapshot()
    await this.#write(2, 3)
    await this.#checkpoint('cp2')
    await this.#write(3, 1)
    await qemuIo(this.#layers[0]!, ['write -z 512k 128k', 'discard 1M 64k'])
    await this.#checkpoint('cp3')
    await this.#write(5, 2)
    writeFileSync(this.#dir.file('vm.xml'), this.#domainXml())
    return this
  }

  get layers(): readonly string[] {
    return this.#layers
  }

  args(checkpoint: string, ...more: string[]): string[] {
    const xml = ['--domain-xml', this.#dir.file('vm.xml'), '--checkpoint-dir', this.#dir.file('checkpoints')]
    return ['plan', 'backup', ...xml, '--incremental', checkpoint, ...more]
  }

  /** The disk as it was at a checkpoint, raw. */
  backup(checkpoint: string): string {
    return this.#dir.file(`${checkpoint}.raw`)
  }

  async #write(megabyte: number, chunks: number): Promise<void> {
    const commands = Array.from({ length: chunks }, (_, i) => {
      return `write -P ${this.#pattern++} ${megabyte * 2 ** 20 + i * 150_000 - ((i * 150_000) % 512)} 70k`
    })
    await qemuIo(this.#layers[0]!, commands)
  }

  async #checkpoint(name: string): Promise<void> {
    const [image] = this.#layers
    const before = this.#checkpoints.at(-1)
    if (this.#dialect === 'chained' && before !== undefined) await qemuImg.bitmap('--disable', image!, before)
    await qemuImg.bitmap('--add', image!, name)
    await run('qemu-img', ['convert', '-O', 'raw', image!, this.backup(name)])
    const parent = before === undefined ? '' : `<parent><name>${before}</name></parent>`
    const xml =
      `<domaincheckpoint><name>${name}</name>${parent}<creationTime>${1000 + this.#checkpoints.length}</creationTime>` +
      `<disks><disk name='vda' checkpoint='bitmap' bitmap='${name}'/></disks>${this.#domainXml()}</domaincheckpoint>`
    writeFileSync(join(this.#dir.file('checkpoints'), `${name}.xml`), xml)
    this.#checkpoints.push(name)
  }

  /** As libvirt does it: bitmaps that record are made again on the overlay. */
  async #snapshot(): Promise<void> {
    const overlay = this.#dir.file('overlay.qcow2')
    await qemuImg.create(overlay, undefined, { backing: this.#layers[0]!, clusterSize: 16384 })
    const recording = this.#dialect === 'chained' ? this.#checkpoints.slice(-1) : this.#checkpoints
    for (const name of recording) await qemuImg.bitmap('--add', overlay, name)
    this.#layers.unshift(overlay)
  }

  #domainXml(): string {
    const [source, ...below] = this.#layers
    const backing = below.reduceRight(
      (inner, file) =>
        `<backingStore type='file'><format type='qcow2'/><source file='${file}'/>${inner}</backingStore>`,
      '<backingStore/>',
    )
    return (
      `<domain type='qemu'><name>vm</name><devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/>` +
      `<source file='${source}'/>${backing}<target dev='vda'/></disk></devices></domain>`
    )
  }
}

const cases = (['independent', 'chained'] as const).flatMap(dialect =>
  ['cp1', 'cp2', 'cp3'].map(checkpoint => [dialect, checkpoint] as const),
)

describe.skipIf(peers.skip)(`a plan carried out${peers.label}`, () => {
  let dir: TempDir
  beforeEach(() => {
    dir = tempDir()
  })
  afterEach(() => dir.remove())

  /** The union of the merge list, by `tidemark map`. */
  const mapOf = async ({ disks }: Plan): Promise<DirtyExtent[]> => {
    const [{ merge }] = disks as [Plan['disks'][0]]
    const names = merge.map(({ layer, bitmap, filename }) => (layer === 0 ? bitmap : `${bitmap}@${filename}`))
    return tidemarkJson(['map', merge[0]!.filename, ...names.flatMap(name => ['--bitmap', name])])
  }

  it.each(cases)(
    '%s, since %s: --format sh makes a backup from which the disk is restored',
    async (dialect, checkpoint) => {
      const history = await new History(dir, dialect).make()
      const plan = await tidemarkJson<Plan>(history.args(checkpoint))
      expect(plan).toMatchObject({
        ...{ dialect, 'dialect-evidence': { source: 'found', pattern: dialect } },
        disks: [
          {
            mode: 'incremental',
            libvirt: dialect === 'chained' && checkpoint !== 'cp3' ? 'reject' : 'accept',
          },
        ],
      })

      const { stdout: script } = await tidemark(history.args(checkpoint, '--format', 'sh'))
      const path = `${join(top, 'node_modules/.bin')}:${process.env.PATH}`
      await run('sh', ['-e'], { input: script, cwd: dir.path, env: { ...plainEnv, PATH: path } })
      const dirty = JSON.parse(readFileSync(dir.file('vda.dirty.json'), 'utf8')) as DirtyExtent[]
      expect(dirty).toEqual(await mapOf(plan))
      expect(dirty.reduce((sum, { type, length }) => sum + type * length, 0)).toBe(
        plan.disks[0]!['dirty-bytes'],
      )

      const now = dir.file('now.raw')
      await run('qemu-img', ['convert', '-O', 'raw', history.layers[0]!, now])
      const restored = dir.file('restored.raw')
      copyFileSync(history.backup(checkpoint), restored)
      expect(readFileSync(restored).equals(readFileSync(now))).toBe(false)
      writeOver(restored, dir.file('vda.dirty.raw'), dirty)
      expect(readFileSync(restored).equals(readFileSync(now))).toBe(true)
    },
    600_000,
  )

  it.each(cases)(
    '%s, since %s: --format qmp runs in QEMU and gives the same dirty set',
    async (dialect, checkpoint) => {
      const history = await new History(dir, dialect).make()
      const plan = await tidemarkJson<Plan>(history.args(checkpoint))
      const wanted = await mapOf(plan)
      const { stdout } = await tidemark(history.args(checkpoint, '--format', 'qmp'))
      const transaction = JSON.parse(stdout) as { execute: string; arguments: Record<string, unknown> }
      const deepest = history.layers.length - 1
      const nodes = history.layers.map((file, layer) =>
        qcow2Blockdev(`vda-layer${layer}`, file, {
          backing: layer === deepest ? null : `vda-layer${layer + 1}`,
        }),
      )
      const daemon = await StorageDaemon.start(nodes.reverse())
      try {
        await daemon.qmp(transaction.execute, transaction.arguments)
        const uri = await daemon.exportNbd('vda-layer0', { bitmaps: ['backup-vda'] })
        const { stdout: json } = await run('nbdinfo', ['--map=qemu:dirty-bitmap:backup-vda', '--json', uri])
        expect(mergedExtents(JSON.parse(json), SIZE)).toEqual(wanted)
      } finally {
        await daemon.kill()
      }
    },
    600_000,
  )

  it('chained: the XML is full, and says so', async () => {
    const history = await new History(dir, 'chained').make()
    const { stdout, stderr, status } = await tidemark(
      history.args('cp1', '--format', 'xml', '--target-dir', '/b'),
    )
    expect(status).toBe(0)
    expect(stderr).toMatch(/^warning: vda: full, since libvirt cannot unite/)
    expect(stdout).toMatch(/^<!-- vda: full, .* -->\n<domainbackup/)
    expect(stdout).toMatch(/backupmode=.full./)
    expect(stdout).not.toContain('<incremental>')
    const newest = await tidemark(history.args('cp3', '--format', 'xml', '--target-dir', '/b'))
    expect(newest).toMatchObject({ status: 0, stderr: '' })
    expect(newest.stdout).toContain('<incremental>cp3</incremental>')
  }, 600_000)

  it('--dialect overrules the flags, --size-then what the metadata do not say', async () => {
    const history = await new History(dir, 'chained').make()
    const told = await tidemarkJson<Plan>(history.args('cp1', '--dialect', 'independent'), { status: 11 })
    expect(told).toMatchObject({
      dialect: 'independent',
      'dialect-evidence': { source: 'told', pattern: 'chained' },
    })
    const grown = await tidemarkJson(history.args('cp1', '--size-then', 'vda=4M'), { status: 11 })
    expect(grown).toMatchObject({
      disks: [{ reasons: [{ code: 'disk-resized', 'size-then': 4 * 2 ** 20 }, { code: 'dialect-chained' }] }],
    })
    const human = await tidemark(history.args('cp1'))
    expect(human.stdout).toContain('Dialect: chained (found)')
    expect(human.stdout).toContain('libvirt would refuse vda: use --format sh')
    for (const wrong of ['vda', 'vda=many', '=4M']) {
      expect((await tidemark(history.args('cp1', '--size-then', wrong))).status).toBe(64)
    }
  }, 600_000)

  it('an internal snapshot of another size is noticed', async () => {
    const image = dir.file('base.qcow2')
    await new History(dir, 'independent').make()
    const overlay = dir.file('overlay.qcow2')
    await qemuImg.snapshot('-c', 'before-growing', overlay)
    for (const file of [image, overlay]) await qemuImg.resize(file, 2 * SIZE)
    const args = [
      'plan',
      'backup',
      '--domain-xml',
      dir.file('vm.xml'),
      '--checkpoint-dir',
      dir.file('checkpoints'),
    ]
    const plan = await tidemarkJson([...args, '--incremental', 'cp1'], { status: 11 })
    expect(plan).toMatchObject({
      disks: [
        {
          ...{ mode: 'full', libvirt: 'accept' },
          reasons: [
            { code: 'disk-resized', 'size-then': SIZE, 'size-now': 2 * SIZE, snapshot: 'before-growing' },
          ],
        },
      ],
    })
  }, 600_000)
})

/** What docs/planning.md tells to do with a backup's files. */
function writeOver(target: string, source: string, extents: readonly DirtyExtent[]): void {
  const [from, to] = [openSync(source, 'r'), openSync(target, 'r+')]
  try {
    for (const { offset, length, type } of extents) {
      if (type === 0) continue
      const bytes = Buffer.alloc(length)
      if (readSync(from, bytes, 0, length, offset) !== length) throw new Error(`${source} ends early`)
      if (writeSync(to, bytes, 0, length, offset) !== length) throw new Error(`${target} takes less`)
    }
  } finally {
    closeSync(from)
    closeSync(to)
  }
}
