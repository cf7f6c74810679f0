import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type DirtyExtent, needs, programPath, qemuImg, run, withTempDir } from '@tidemark/testkit'
import { describe, expect, it } from 'vitest'
import { plainEnv, tidemark, tidemarkJson } from './cli.js'
import { byteSet, extentsOfSet, union } from './sets.js'
import { checkpoints, images, maps, planArgs, top, verdicts, webshop } from './webshop.js'

/** JSON with one more suffix: formatters must leave it alone. */
const forms: Record<string, readonly string[]> = {
  'human.txt': [],
  'plan.json.txt': ['--output', 'json'],
  'push.xml': ['--format', 'xml'],
  'push-to.xml': ['--format', 'xml', '--target-dir', '/backup/shop'],
  'pull.xml': ['--format', 'xml', '--pull'],
  'qmp.json.txt': ['--format', 'qmp'],
  'offline.sh': ['--format', 'sh'],
}

interface Plan {
  readonly disks: readonly {
    readonly target: string
    readonly mode: string
    readonly libvirt: string
    readonly 'dirty-bytes'?: number
    readonly merge: readonly { readonly filename: string; readonly bitmap: string }[]
  }[]
}

/** File names hold the moment at which they were made, and scripts the place where this checkout is. */
const anywhere = (text: string): string =>
  text.replaceAll(/\b\d{8}T\d{6}\.\d{3}Z\b/g, 'TIME').replaceAll(top.replace(/\/$/, ''), '/CHECKOUT')

const lengthOf = (extents: readonly DirtyExtent[]): number =>
  extents.reduce((sum, { type, length }) => sum + type * length, 0)

describe.each(checkpoints)("the example's plan since %s", checkpoint => {
  const wanted = verdicts[checkpoint]!
  const status = Object.values(wanted).includes('reject') ? 10 : 0

  it.each(Object.entries(forms))('as %s', async (name, args) => {
    const result = await tidemark(planArgs(checkpoint, ...args), { cwd: top })
    expect(result).toMatchObject({ status, stderr: '' })
    await expect(anywhere(result.stdout)).toMatchFileSnapshot(`golden/${checkpoint}.${name}`)
  })

  it("agrees with libvirt's verdicts, and its sizes with nbdinfo", async () => {
    const plan = await tidemarkJson<Plan>(planArgs(checkpoint), { cwd: top, status })
    const said = Object.fromEntries(plan.disks.map(({ target, libvirt }) => [target, libvirt]))
    expect(said).toEqual(wanted)
    for (const { mode, libvirt, merge, 'dirty-bytes': dirtyBytes } of plan.disks) {
      expect(mode).toBe(libvirt === 'accept' ? 'incremental' : 'full')
      const sets = merge.map(({ filename, bitmap }) =>
        byteSet(maps[filename.slice(images.length + 1)]![bitmap]!),
      )
      expect(dirtyBytes).toBe(libvirt === 'accept' ? lengthOf(extentsOfSet(union(sets), 2 ** 40)) : undefined)
    }
  })
})

it("the README's screen is what npm start shows", () => {
  const shown = readFileSync(join(top, 'packages/cli/test/golden/monday.human.txt'), 'utf8')
  expect(readFileSync(join(top, 'README.md'), 'utf8')).toContain(`\n${shown}`)
})

describe('the bitmaps of the example', () => {
  it.each(
    Object.entries(maps).flatMap(([image, bitmaps]) => Object.keys(bitmaps).map(name => [image, name])),
  )('%s: %s', async (image, name) => {
    const found = await tidemarkJson(['map', `${images}/${image}`, '--bitmap', name!], { cwd: top })
    expect(found).toEqual(maps[image!]![name!])
  })
})

const peers = needs('qemu-img')
describe.skipIf(peers.skip)(`--format sh, run${peers.label}`, () => {
  it.each(checkpoints)('since %s', checkpoint =>
    withTempDir(async dir => {
      const args = planArgs(checkpoint, '--format', 'sh').map(arg =>
        arg
          .replace(`${webshop}/libvirt`, join(top, webshop, 'libvirt'))
          .replace(`=${images}`, `=${join(top, images)}`),
      )
      const { stdout } = await tidemark(args, { cwd: dir.path })
      const path = `${join(top, 'node_modules/.bin')}:${process.env.PATH}`
      await run('sh', ['-e'], { input: stdout, cwd: dir.path, env: { ...plainEnv, PATH: path } })

      const plan = await tidemarkJson<Plan>(planArgs(checkpoint), {
        cwd: top,
        status: stdout.includes('full') ? 10 : 0,
      })
      for (const { target, mode, merge } of plan.disks) {
        if (mode === 'full') {
          const original = join(top, images, target === 'sdc' ? 'logs.qcow2' : 'root.qcow2')
          expect(await qemuImg.compare(dir.file(`${target}.full.qcow2`), original)).toBe(true)
          continue
        }
        const found = JSON.parse(readFileSync(dir.file(`${target}.dirty.json`), 'utf8')) as DirtyExtent[]
        const of = merge.map(({ filename, bitmap }) => maps[filename.slice(images.length + 1)]![bitmap]!)
        const size = of[0]!.reduce((sum, { length }) => sum + length, 0)
        expect(found).toEqual(extentsOfSet(union(of.map(byteSet)), size))
        expect(statSync(dir.file(`${target}.dirty.raw`)).size).toBe(size)
      }
    }),
  )
})

const schema = '/usr/share/libvirt/schemas/domainbackup.rng'
const canValidate = existsSync(schema) && programPath('xmllint') !== undefined
describe.skipIf(!canValidate)(
  `the backup XML is valid by libvirt's schema${canValidate ? '' : ' [skipped: needs xmllint (libxml2-utils) and the schema of libvirt]'}`,
  () => {
    const xmlForms = Object.entries(forms).filter(([name]) => name.endsWith('.xml'))
    it.each(
      checkpoints.flatMap(checkpoint => xmlForms.map(([name, args]) => [checkpoint, name, args] as const)),
    )('%s, %s', async (checkpoint, _, args) => {
      const { stdout } = await tidemark(planArgs(checkpoint, ...args), { cwd: top })
      await run('xmllint', ['--noout', '--relaxng', schema, '-'], { input: stdout })
    })
  },
)
