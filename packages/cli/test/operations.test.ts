import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { planDelete } from '@tidemark/planner'
import { loadDomain, openDomainImages } from '@tidemark/planner/node'
import { createEngine } from '@tidemark/qcow2'
import { tempDir, writeQcow2 } from '@tidemark/testkit'
import { describe, expect, it } from 'vitest'
import { applyOperations } from '../src/bitmap/apply-operations.js'
import type { CommandError } from '../src/errors.js'
import { Interruption } from '../src/interruption.js'
import { Output } from '../src/output.js'
import { tidemark, tidemarkError, tidemarkJson } from './cli.js'
import { hostImages, images, top, webshop } from './webshop.js'

const shop = [
  ...['--domain', 'webshop', '--libvirt-root', `${webshop}/libvirt`],
  ...['--map-source', `${hostImages}=${images}`],
]
const at = { cwd: top }

describe('plan delete, commit, pull, copy, snapshot', () => {
  it.each([
    [['delete', ...shop]],
    [['commit', ...shop, '--disk', 'sdb', '--top', '0']],
    [['pull', ...shop]],
    [['copy', ...shop, '--disk', 'sdb']],
    [['snapshot', ...shop, '--disk', '=x']],
    [['delete', 'monday']],
    [['delete', 'monday', ...shop, '--apply', '--format', 'sh']],
    [['delete', 'monday', ...shop, '--unsafe-no-lock']],
    [['delete', 'monday', ...shop, '--format', 'xml']],
    [['copy', ...shop, '--disk', 'sdb', '--target', 'x', '--apply']],
    [['snapshot', ...shop, '--apply']],
    [['snapshot', ...shop, '--disk', 'sda=x', '--disk', 'sda=y']],
    [['backup', ...shop, '--what-if', 'eat=sda']],
    [['backup', ...shop, '--what-if', 'snapshot', '--format', 'sh']],
  ])('%j is not understood', async args => {
    expect(await tidemarkError(['plan', ...args], at)).toMatchObject({ status: 64, error: { code: 'usage' } })
  })

  it.each([
    [['delete', 'mondai'], 'checkpoint-missing', "did you mean 'monday'?"],
    [['commit', '--disk', 'sdx', '--top', '0', '--base', '1'], 'disk-unknown', 'disks: sda'],
    [['commit', '--disk', 'sdb', '--top', '1', '--base', '0'], 'layer-order', 'must be below'],
    [['commit', '--disk', 'sdb', '--top', '0', '--base', 'x'], 'layer-unknown', '0 is the top'],
    [['pull', '--disk', 'sda'], 'layer-order', 'one image'],
  ])('%j is an error with a name', async (args, code, words) => {
    const { status, error } = await tidemarkError(['plan', ...args, ...shop], at)
    expect({ status, code: error.code }).toEqual({ status: 1, code })
    expect(error.message).toContain(words)
  })

  it('--format json is --output json', async () => {
    const args = ['plan', 'commit', ...shop, '--disk', 'sdb', '--top', '0', '--base', '1']
    const plan = await tidemarkJson<Record<string, unknown>>(args, at)
    expect(JSON.parse((await tidemark([...args, '--format', 'json'], at)).stdout)).toEqual(plan)
    expect(plan).toMatchObject({ action: 'commit', domain: 'webshop', dialect: 'independent', reopen: [] })
    expect(plan.operations).toContainEqual({
      ...{ disk: 'sdb', layer: 1, filename: `${images}/data.qcow2`, bitmap: 'wednesday', kind: 'add' },
      ...{ granularity: 16384, persistent: true, disabled: false },
    })
    expect(plan.problems).toEqual([expect.objectContaining({ code: 'bitmaps-lost', severity: 'note' })])
  })

  it('shows people a row for each bitmap, and what is left to do', async () => {
    const { stdout, status } = await tidemark(['plan', 'delete', 'monday', ...shop], at)
    expect(status).toBe(0)
    expect(stdout).toMatch(/^ {2}sdb +1 +data\.qcow2 +monday +removed$/m)
    expect(stdout).toContain('virsh checkpoint-delete webshop monday --metadata')
  })

  it('--apply with --dry-run is a dry run', async () => {
    const before = readFileSync(join(top, images, 'root.qcow2'))
    const dry = await tidemark(['plan', 'delete', 'monday', ...shop, '--dry-run'], at)
    const both = await tidemark(['plan', 'delete', 'monday', ...shop, '--apply', '--dry-run'], at)
    expect(both).toEqual(dry)
    expect([both.status, both.stdout]).toEqual([0, expect.stringContaining('monday')])
    expect(readFileSync(join(top, images, 'root.qcow2'))).toEqual(before)
  })

  it('says how it is done: an image that is yet to be made cannot be applied to', async () => {
    const plan = async (...args: string[]) => (await tidemark(['plan', ...args, ...shop], at)).stdout
    expect(await plan('snapshot')).not.toContain('--apply')
    expect(await plan('copy', '--disk', 'sdb', '--target', 'new.qcow2')).not.toContain('--apply')
    const commit = await plan('commit', '--disk', 'sdb', '--top', '0', '--base', '1')
    expect(commit).toContain('--apply')
    expect(commit).toMatch(/^ {2}sdb +1 +data\.qcow2 +monday +merged from layer 0$/m)
    expect(commit).toMatch(/wednesday +added, recording \(16 KiB\), merged from layer 0$/m)
  })

  it('calls images as the host of the domain does', async () => {
    const args = ['plan', 'commit', ...shop, '--disk', 'sdb', '--top', '0', '--base', '1']
    const { remaining } = await tidemarkJson<{ remaining: string[] }>(args, at)
    expect(remaining).toEqual([`virsh edit webshop, before it starts: sdb is ${hostImages}/data.qcow2 now`])
  })

  it('keeps the bitmap that shows what an older one has lost; --no-bodies does not look', async () => {
    const dir = tempDir()
    try {
      for (const name of ['root', 'data', 'data.overlay', 'logs']) {
        copyFileSync(join(top, images, `${name}.qcow2`), join(dir.path, `${name}.qcow2`))
      }
      const args = [...shop.slice(0, -2), '--map-source', `${hostImages}=${dir.path}`]
      const cleared = await tidemark(['bitmap', '--clear', join(dir.path, 'root.qcow2'), 'tuesday'], at)
      expect(cleared.status).toBe(0)
      expect(await tidemarkError(['plan', 'delete', 'wednesday', ...args], at)).toMatchObject({
        ...{ status: 1, error: { code: 'operation-blocked', reason: 'bitmap-trap' } },
      })
      const flags = await tidemark(['plan', 'delete', 'wednesday', ...args, '--no-bodies'], at)
      expect(flags.status).toBe(0)
    } finally {
      dir.remove()
    }
  })

  it('makes no script where qemu-img would go by other names than the plan', async () => {
    const args = ['plan', 'commit', ...shop, '--disk', 'sdb', '--top', '0', '--base', '1']
    expect(await tidemarkError([...args, '--format', 'sh'], at)).toMatchObject({
      status: 1,
      error: { code: 'backing-elsewhere', layer: 0, backing: `${hostImages}/data.qcow2` },
    })
    const { stdout, status } = await tidemark([...args, '--dry-run'], at)
    expect([status, stdout]).toEqual([0, expect.stringContaining('  the data: qemu-img follows the names')])
    expect(stdout).not.toContain('qemu-img commit')
  })

  it.each([
    ['snapshot', '--disk', `sda=${images}/root.qcow2`],
    ['snapshot', '--disk', `sda=${images}/data.qcow2`],
    ['snapshot', '--disk', 'sda=new', '--disk', 'sdb=new'],
    ['copy', '--disk', 'sda', '--target', `${images}/data.qcow2`],
    ['copy', '--disk', 'sdb', '--target', `${images}/data.qcow2`],
  ])('%s onto an image of the chain is refused', async (...args) => {
    expect(await tidemarkError(['plan', ...args, ...shop], at)).toMatchObject({
      ...{ status: 1, error: { code: 'overlay-unfit' } },
    })
  })
})

describe('--apply', () => {
  // The command looks at images, then holds them: what comes in between comes here.
  it('does not carry out what was planned of other bitmaps than there are by now', async () => {
    const dir = tempDir()
    const [file, other] = ['root', 'data'].map(name => dir.file(`${name}.qcow2`)) as [string, string]
    const bitmaps = ['monday', 'tuesday'].map(name => ({
      name,
      flags: name === 'monday' ? 0 : 2,
      dirty: [1],
    }))
    const domain = (...sources: string[]) =>
      `<domain type='qemu'><name>d</name><devices>${sources
        .map(
          (
            source,
            i,
          ) => `<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${source}'/>
          <target dev='vd${'ab'[i]}' bus='virtio'/></disk>`,
        )
        .join('')}</devices></domain>`
    const domainXml = dir.file('d.xml')
    writeFileSync(domainXml, domain(file, other))
    const checkpointDir = dir.file('checkpoints')
    mkdirSync(checkpointDir)
    for (const [i, name] of ['monday', 'tuesday'].entries()) {
      const disks = ['vda', 'vdb'].map(disk => `<disk name='${disk}' checkpoint='bitmap' bitmap='${name}'/>`)
      const parent = i === 0 ? '' : '<parent><name>monday</name></parent>'
      const xml = `<domaincheckpoint><name>${name}</name>${parent}<creationTime>${i + 1}</creationTime>
        <disks>${disks.join('')}</disks>${domain(file, other)}</domaincheckpoint>`
      writeFileSync(join(checkpointDir, `${name}.xml`), xml)
    }
    const apply = async (meddle?: () => Promise<unknown>) => {
      for (const each of [file, other]) writeQcow2(each, { bitmaps })
      const { domain, checkpoints } = await loadDomain({ domainXml, checkpointDir })
      const found = await openDomainImages(domain, { engine: createEngine() })
      const facts = { domain, checkpoints, chains: found.chains, fileIds: found.fileIds }
      const plan = planDelete(facts, { checkpoint: 'tuesday', dialect: 'chained' })
      await found.close()
      await meddle?.()
      const before = [file, other].map(each => readFileSync(each))
      const interruption = new Interruption(() => {})
      const output = new Output('human')
      output.write = async () => {}
      const error = await applyOperations(plan, facts, { leftToDo: [] }, {}, interruption, output).then(
        () => undefined,
        (thrown: CommandError) => thrown.code,
      )
      return { error, untouched: [file, other].every((each, i) => before[i]!.equals(readFileSync(each))) }
    }
    expect(await apply()).toEqual({ error: undefined, untouched: false })
    // As a plan that deletes monday does it in this dialect, and a VM that has recorded.
    for (const args of [
      ['--disable', other, 'tuesday'],
      ['--add', other, 'wednesday'],
      ['--remove', other, 'monday'],
    ]) {
      const meddled = await apply(() => tidemark(['bitmap', ...args]))
      expect(meddled, args.join(' ')).toEqual({ error: 'changed-meanwhile', untouched: true })
    }
    dir.remove()
  })
})

describe('plan backup --what-if', () => {
  interface Answer {
    readonly disks: readonly { readonly target: string; readonly mode: string }[]
    readonly 'what-if': {
      readonly changes: readonly string[]
      readonly disks: readonly { readonly target: string; readonly after: { readonly mode: string } | null }[]
      readonly error?: { readonly code: string }
    }
  }
  const ask = (status: number, ...args: string[]) =>
    tidemarkJson<Answer>(['plan', 'backup', ...shop, '--incremental', 'tuesday', ...args], { ...at, status })

  it('has the plan as it is, and as it would be', async () => {
    const { disks, 'what-if': then } = await ask(10, '--what-if', 'detach=sda', '--what-if', 'resize=sdb=20G')
    expect(disks.map(({ mode }) => mode)).toEqual(['incremental', 'incremental', 'incremental'])
    expect(then.changes).toEqual(['detach=sda', 'resize=sdb=20G'])
    expect(then.disks.map(({ target, after }) => [target, after?.mode])).toEqual([
      ['sda', undefined],
      ['sdb', 'full'],
      ['sdc', 'incremental'],
    ])
  })

  it('tells when there would be no backup', async () => {
    expect((await ask(1, '--what-if', 'delete=tuesday'))['what-if'].error?.code).toBe('checkpoint-missing')
  })

  it('where there is no checkpoint there is nothing to ask of', async () => {
    const dir = tempDir()
    try {
      mkdirSync(join(dir.path, 'qemu'))
      copyFileSync(join(top, webshop, 'libvirt/qemu/webshop.xml'), join(dir.path, 'qemu/webshop.xml'))
      const where = ['--domain', 'webshop', '--libvirt-root', dir.path]
      const answer = await tidemarkError(['plan', 'backup', ...where, '--what-if', 'detach=sda'], at)
      expect(answer).toMatchObject({ status: 1, error: { code: 'no-checkpoints' } })
    } finally {
      dir.remove()
    }
  })

  it('without a checkpoint asks for each', async () => {
    const { stdout, status } = await tidemark(['plan', 'backup', ...shop, '--what-if', 'snapshot'], at)
    expect(status).toBe(10)
    for (const name of ['monday', 'tuesday', 'wednesday']) expect(stdout).toContain(`Since ${name}\n`)
  })
})
