import {
  chmodSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { tempDir } from '@tidemark/testkit'
import { afterAll, beforeEach, describe, expect, it } from 'vitest'
import { tidemark, tidemarkError, tidemarkJson } from './cli.js'
import { hostImages, images, top, webshop } from './webshop.js'

const dir = tempDir()
afterAll(() => dir.remove())
const root = join(dir.path, 'libvirt')
const metadata = join(root, 'qemu/checkpoint/webshop')
const args = (command: string, ...more: string[]) => [
  ...['checkpoint', command, '--domain', 'webshop', '--libvirt-root', root],
  ...['--map-source', `${hostImages}=${join(top, images)}`, ...more],
]
const secret = 'hunter2'

/** The example's metadata, with a password in each domain. */
beforeEach(() => {
  rmSync(root, { recursive: true, force: true })
  cpSync(join(top, webshop, 'libvirt'), root, { recursive: true })
  const graphics = `<graphics type='vnc' passwd='${secret}'/>`
  for (const file of [
    ...readdirSync(metadata).map(name => join(metadata, name)),
    join(root, 'qemu/webshop.xml'),
  ]) {
    chmodSync(file, 0o644)
    writeFileSync(file, readFileSync(file, 'utf8').replace('</devices>', `${graphics}</devices>`))
  }
})

describe('checkpoint list and show', () => {
  it('a table, the tree, and the same as JSON', async () => {
    const { stdout, stderr } = await tidemark(args('list'))
    expect(stderr).toBe('')
    expect(stdout).toMatch(/^ {2}NAME +PARENT +CREATED \(UTC\) +DISKS +USABLE NOW$/m)
    expect(stdout).toMatch(/^\* wednesday +tuesday +2026-03-04T02:00:00Z +sda sdb sdc +yes$/m)
    const tree = (await tidemark(args('list', '--tree', '--bodies'))).stdout
    expect(tree.match(/○ (\w+)/g)).toEqual(['○ monday', '○ tuesday', '○ wednesday'])
    const { checkpoints, ...rest } = await tidemarkJson<{ checkpoints: Record<string, unknown>[] }>(
      args('list'),
    )
    expect(rest).toEqual({
      ...{ domain: 'webshop', dialect: 'independent', current: 'wednesday', problems: [], running: false },
    })
    expect(checkpoints[0]).toMatchObject({
      name: 'monday',
      parent: null,
      usable: 'all',
      recorded: ['sda', 'sdb'],
    })
    expect(checkpoints[0]!['creation-time']).toBe(Date.parse(String(checkpoints[0]!.created)) / 1000)
    expect(JSON.stringify(checkpoints)).not.toContain(secret)
  })

  it('the oldest first, whatever files are called; fewer disks where there is little room', async () => {
    const file = (name: string) => join(metadata, `${name}.xml`)
    writeFileSync(file('0'), readFileSync(file('wednesday')))
    rmSync(file('wednesday'))
    const { stdout } = await tidemark(args('list'), { env: { COLUMNS: '60' } })
    const rows = stdout.split('\n').filter(line => line.includes('2026-'))
    expect(rows.map(row => row.slice(2).split(' ')[0])).toEqual(['monday', 'tuesday', 'wednesday'])
    expect(rows[2]).toContain(' sda sdb +1 ')
    expect(Math.max(...rows.map(row => row.length))).toBeLessThan(80)
  })

  it('draws what is broken, and does not go round in it', async () => {
    const file = join(metadata, 'monday.xml')
    const xml = readFileSync(file, 'utf8')
    writeFileSync(file, xml.replace('</name>', '</name><parent><name>wednesday</name></parent>'))
    const { stdout } = await tidemark(args('list', '--tree'))
    expect(stdout).toContain('again: the chain is circular')
    expect(stdout).toContain("are each other's parents")
  })

  it('one checkpoint: each layer with its bitmap, and how much it marks', async () => {
    const { stdout } = await tidemark(args('show', 'monday', '--count'))
    expect(stdout).toMatch(/^ {2}1 +data\.qcow2 +recording +16 KiB +96 KiB$/m)
    expect(stdout).toContain('disk-not-in-checkpoint')
    const shown = await tidemarkJson<{ disks: { target: string; mode: string; layers: unknown[] }[] }>(
      args('show', 'monday', '--count'),
    )
    expect(shown.disks.map(({ target, mode, layers }) => [target, mode, layers.length])).toEqual([
      ['sda', 'incremental', 1],
      ['sdb', 'incremental', 2],
      ['sdc', 'full', 1],
    ])
    expect(shown.disks[0]!.layers[0]).toMatchObject({ bitmap: { flags: ['auto'], 'dirty-bytes': 65536 } })
    const { status, error } = await tidemarkError(args('show', 'mondya'))
    expect({ status, code: error.code }).toEqual({ status: 1, code: 'checkpoint-missing' })
    expect(error.message).toContain("'monday'")
  })
})

describe('checkpoint reconcile and redefine', () => {
  it('nothing is wrong with the example; all of it is, without its metadata', async () => {
    expect((await tidemark(args('reconcile'))).status).toBe(0)
    rmSync(metadata, { recursive: true })
    const found = await tidemarkJson<{
      findings: { code: string; bitmap: string; ways: { way: string }[] }[]
    }>(args('reconcile'), { status: 2 })
    expect(
      found.findings.map(({ code, bitmap, ways }) => [code, bitmap, ways.map(({ way }) => way)]).sort(),
    ).toEqual(['monday', 'tuesday', 'wednesday'].map(name => ['bitmap-orphan', name, ['adopt', 'drop']]))
  })

  it('commands name files by paths that hold wherever they are run', async () => {
    cpSync(join(metadata, 'monday.xml'), join(metadata, 'copy of monday.xml'))
    const where = args('reconcile').map(each => (each === root ? 'libvirt' : each))
    const { findings } = await tidemarkJson<{ findings: { code: string; commands: string[] }[] }>(where, {
      status: 2,
      cwd: dir.path,
    })
    const { commands } = findings.find(({ code }) => code === 'checkpoint-duplicate')!
    expect(commands).toContain(`mv -- '${join(metadata, 'copy of monday.xml')}' ./set-aside-webshop/`)
  })

  it('puts lost checkpoints in order by their bits, and says how sure it is', async () => {
    rmSync(metadata, { recursive: true })
    const out = join(dir.path, 'made')
    const { stdout, stderr, status } = await tidemark(args('redefine', '-o', out))
    expect(status).toBe(0)
    expect(stdout).toBe(
      ['monday', 'tuesday', 'wednesday']
        .map(name => `virsh checkpoint-create webshop ${out}/${name}.xml --redefine\n`)
        .join(''),
    )
    expect(stderr).toContain('the time is invented')
    expect(readdirSync(out).sort()).toEqual(['monday.xml', 'tuesday.xml', 'wednesday.xml'])
    const tuesday = readFileSync(join(out, 'tuesday.xml'), 'utf8')
    expect(tuesday).toContain('<name>monday</name>')
    expect(tuesday).not.toContain('<domain ')
    rmSync(out, { recursive: true })
  })

  it('writes what metadata hold for nobody else, and shows a password nowhere', async () => {
    const out = join(dir.path, 'deep/er')
    for (const more of [[], ['--output', 'json'], ['-o', out], ['-o', out, '--force', '--output', 'json']]) {
      const { stdout, stderr, status } = await tidemark(args('redefine', ...more))
      expect(status).toBe(0)
      expect(stdout + stderr).not.toContain(secret)
    }
    const file = join(out, 'monday.xml')
    expect(readFileSync(file, 'utf8')).toContain(secret)
    expect(statSync(file).mode & 0o777).toBe(0o600)
    rmSync(join(dir.path, 'deep'), { recursive: true })
  })

  it('all files or none: a folder in the way, names that are there, what is asked for and is not', async () => {
    const out = join(dir.path, 'blocked')
    mkdirSync(join(out, 'wednesday.xml'), { recursive: true })
    for (const force of [[], ['--force']]) {
      const { status, error } = await tidemarkError(args('redefine', '-o', out, ...force))
      expect({ status, code: error.code }).toEqual({ status: 1, code: 'file-exists' })
      expect(readdirSync(out)).toEqual(['wednesday.xml'])
    }
    const missing: [string[], string][] = [
      [['--bitmap', 'nobody'], 'bitmap-missing'],
      [['--bitmap', 'monday'], 'bitmap-missing'],
      [['--checkpoint', 'nobody'], 'checkpoint-missing'],
    ]
    for (const [more, code] of missing) {
      expect((await tidemarkError(args('redefine', ...more))).error.code).toBe(code)
    }
    rmSync(join(dir.path, 'libvirt/qemu/checkpoint'), { recursive: true })
    expect((await tidemarkError(args('redefine', '--no-bitmaps'))).error.code).toBe('nothing-to-redefine')
  })
})

describe('where redefine writes to', () => {
  const out = (folder: string) => tidemarkError(args('redefine', '-o', folder), { timeout: 30_000 })

  it.each(['/proc/tidemark', '/proc/tidemark/deeper', '/dev/null', '/dev/null/x'])(
    '%s is an error, and no endless try',
    async folder => {
      expect(await out(folder)).toMatchObject({ status: 1, error: { code: 'write-failed' } })
    },
  )

  it('folders that were made for nothing go again', async () => {
    const file = join(dir.path, 'file')
    writeFileSync(file, '')
    expect(await out(join(file, 'a'))).toMatchObject({ status: 1 })
    const name = 'x'.repeat(300)
    expect(await out(join(dir.path, 'new', 'deep', name))).toMatchObject({ status: 1 })
    expect(readdirSync(dir.path)).not.toContain('new')
  })
})
