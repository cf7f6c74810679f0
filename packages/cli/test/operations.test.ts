import { describe, expect, it } from 'vitest'
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
    [['delete', 'monday', ...shop, '--apply', '--dry-run']],
    [['delete', 'monday', ...shop, '--apply', '--format', 'sh']],
    [['delete', 'monday', ...shop, '--unsafe-no-lock']],
    [['delete', 'monday', ...shop, '--format', 'xml']],
    [['copy', ...shop, '--disk', 'sdb', '--target', 'x', '--apply']],
    [['snapshot', ...shop, '--apply']],
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
    expect(stdout).toContain("virsh checkpoint-delete 'webshop' 'monday' --metadata")
  })

  it.each([
    ['snapshot', '--disk', `sda=${images}/root.qcow2`],
    ['copy', '--disk', 'sdb', '--target', `${images}/data.qcow2`],
  ])('%s onto an image of the chain is refused', async (...args) => {
    expect(await tidemarkError(['plan', ...args, ...shop], at)).toMatchObject({
      ...{ status: 1, error: { code: 'overlay-unfit' } },
    })
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

  it('without a checkpoint asks for each', async () => {
    const { stdout, status } = await tidemark(['plan', 'backup', ...shop, '--what-if', 'snapshot'], at)
    expect(status).toBe(10)
    for (const name of ['monday', 'tuesday', 'wednesday']) expect(stdout).toContain(`Since ${name}\n`)
  })
})
