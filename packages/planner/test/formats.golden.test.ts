import { spawnSync } from 'node:child_process'
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  type BackupFacts,
  PlanError,
  planBackup,
  planToBackupXml,
  planToJson,
  planToQmp,
  planToSh,
} from '../src/index.js'
import { bitmap, checkpoint, disk, domain, layer } from './facts.js'
import { haveSchemas, schemaFaults, schemasNote } from './schemas.js'

const then = domain([
  disk('vda', '/images/vda.qcow2'),
  disk('vdb', "/images/it's b.qcow2"),
  disk('vde', '/images/vde'),
])

/** Incremental over an overlay, incremental with an odd name, hotplugged, raw, image gone, and a CD-ROM. */
const mixed: BackupFacts = {
  domain: domain([
    disk('vda', '/images/vda.s1'),
    disk('vdb', "/images/it's b.qcow2"),
    disk('vdc', '/images/vdc.qcow2'),
    disk('vdd', '/dev/vg/vdd', { type: 'block', format: 'raw' }),
    disk('vde', '/images/vde'),
    disk('sda', '/iso/install.iso', { device: 'cdrom', readonly: true, format: 'raw' }),
  ]),
  checkpoints: [checkpoint('cp1', { domain: then })],
  chains: new Map([
    [
      'vda',
      [layer('/images/vda.s1', ['cp1']), layer('/images/vda.qcow2', [bitmap('cp1', { granularity: 4096 })])],
    ],
    ['vdb', [layer("/images/it's b.qcow2", ['cp1'])]],
    ['vdc', [layer('/images/vdc.qcow2', [])]],
    ['vdd', [layer('/dev/vg/vdd', [], { format: 'raw', compat: undefined })]],
    [
      'vde',
      [
        layer('/images/vde', [], {
          problem: { code: 'image-missing', message: 'ENOENT' },
          virtualSize: undefined,
        }),
      ],
    ],
  ]),
}
const plan = planBackup(mixed, { incremental: 'cp1' })
const some = planBackup(mixed, { incremental: 'cp1', disks: ['vda', 'vdc'] })
const full = planBackup(mixed, { incremental: 'cp1', disks: ['vdc'] })
const golden = (name: string) => `fixtures/formats/${name}`

describe('a mixed plan', () => {
  it('as JSON', async () => {
    await expect(`${JSON.stringify(planToJson(plan), undefined, 2)}\n`).toMatchFileSnapshot(
      golden('mixed.json'),
    )
  })

  it('as QMP', async () => {
    await expect(`${JSON.stringify(planToQmp(plan), undefined, 2)}\n`).toMatchFileSnapshot(
      golden('mixed.qmp.json'),
    )
  })

  it('as sh', async () => {
    await expect(planToSh(plan)).toMatchFileSnapshot(golden('mixed.sh'))
  })
})

const XML = {
  'push.xml': planToBackupXml(plan, { mode: 'push', suffix: '20260801T0300', targetDir: '/backup/web/' }),
  'pull.xml': planToBackupXml(plan, {
    mode: 'pull',
    suffix: '20260801T0300',
    targetDir: '/backup/web',
    socket: '/run/b.sock',
  }),
  'some.push.xml': planToBackupXml(some, { mode: 'push', suffix: 's1' }),
  'full.push.xml': planToBackupXml(full, { mode: 'push', suffix: 's1' }),
}

describe('as <domainbackup>', () => {
  it.each(Object.entries(XML))('%s', async (name, xml) => {
    await expect(xml).toMatchFileSnapshot(golden(name))
  })

  it.skipIf(!haveSchemas)(`validate against libvirt's schema${schemasNote}`, async () => {
    expect(await schemaFaults('domainbackup', Object.values(XML))).toEqual([])
  })

  it('needs a folder for a block device', () => {
    expect(() => planToBackupXml(plan, { mode: 'push', suffix: 's' })).toThrow(
      expect.objectContaining({ code: 'target-dir-needed' }),
    )
  })

  it('takes absolute folders and plain suffixes alone', () => {
    expect(() => planToBackupXml(some, { mode: 'push', suffix: 's', targetDir: 'here' })).toThrow(RangeError)
    expect(() => planToBackupXml(some, { mode: 'push', suffix: '../s' })).toThrow(RangeError)
    expect(() => planToBackupXml(some, { mode: 'pull', suffix: 's', socket: 'sock' })).toThrow(RangeError)
  })
})

describe('a plan of several bitmaps', () => {
  const names = ['cp1', 'cp2']
  const bitmaps = [bitmap('cp1', { recording: false }), bitmap('cp2')]
  const facts: BackupFacts = {
    domain: domain([disk('vda', '/a')]),
    checkpoints: names.map((name, i) =>
      checkpoint(name, { parent: names[i - 1], domain: domain([disk('vda', '/a')]) }),
    ),
    chains: new Map([['vda', [layer('/a', bitmaps)]]]),
  }
  const chained = planBackup(facts, { incremental: 'cp1' })

  it('is full for libvirt, which a comment says; QMP and sh unite them', () => {
    const xml = planToBackupXml(chained, { mode: 'push', suffix: 's' })
    expect(xml).toMatch(/^<!-- vda: full, since libvirt .* -->\n<domainbackup/)
    expect(xml).not.toContain('incremental')
    const [, merge] = planToQmp(chained).arguments.actions
    expect(merge).toMatchObject({ data: { bitmaps: [{ name: 'cp1' }, { name: 'cp2' }] } })
    expect(planToSh(chained)).toContain("'/a' --bitmap 'cp1' --bitmap 'cp2' --output json")
  })

  it('is full for libvirt too where that would accept the asked one alone', () => {
    const again = { ...facts, chains: new Map([['vda', [layer('/a', ['cp1', 'cp2'])]]]) }
    const told = planBackup(again, { incremental: 'cp1', dialect: 'chained' })
    expect(told.disks[0]).toMatchObject({ mode: 'incremental', libvirt: 'accept' })
    expect(planToBackupXml(told, { mode: 'push', suffix: 's' })).not.toContain('incremental')
  })
})

describe('a plan with an unknown disk', () => {
  const unknown = planBackup(
    {
      ...mixed,
      chains: new Map([
        ['vda', [layer('/images/vda.s1', ['cp1'], { locked: true }), layer('/images/vda.qcow2', ['cp1'])]],
      ]),
    },
    { incremental: 'cp1', disks: ['vda'] },
  )

  it.each([
    ['xml', () => planToBackupXml(unknown, { mode: 'push', suffix: 's' })],
    ['qmp', () => planToQmp(unknown)],
    ['sh', () => planToSh(unknown)],
  ])('has no %s', (_format, print) => {
    expect(print).toThrow(PlanError)
    expect(print).toThrow('it cannot be told how to back up vda')
  })
})

describe('the script', () => {
  /** Runs it with tools that write down their arguments. */
  function run(script: string) {
    const folder = mkdtempSync(join(tmpdir(), 'tidemark-sh-'))
    try {
      for (const tool of ['tidemark', 'qemu-img']) {
        const log = `#!/bin/sh\nfor a in "${tool}" "$@"; do printf '%s\\n' "$a"; done >> "${folder}/log"\n`
        writeFileSync(join(folder, tool), log)
        chmodSync(join(folder, tool), 0o755)
      }
      const env = { ...process.env, PATH: `${folder}:${process.env.PATH}` }
      const { status, stderr } = spawnSync('sh', ['-e'], {
        input: script,
        cwd: folder,
        env,
        encoding: 'utf8',
      })
      return { status, stderr, calls: readFileSync(join(folder, 'log'), 'utf8').trimEnd().split('\n') }
    } finally {
      rmSync(folder, { recursive: true })
    }
  }

  it('quotes whatever a path holds, does all it can and then fails for the disk it cannot copy', () => {
    const { status, stderr, calls } = run(planToSh(plan))
    expect(status).toBe(1)
    expect(stderr).toContain('vde: not backed up')
    const vda = ['/images/vda.s1', '--bitmap', 'cp1', '--bitmap', 'cp1@/images/vda.qcow2']
    const vdb = ["/images/it's b.qcow2", '--bitmap', 'cp1']
    expect(calls).toEqual([
      ...['tidemark', 'map', ...vda, '--output', 'json'],
      ...['tidemark', 'dump', ...vda, '-o', 'vda.dirty.raw'],
      ...['tidemark', 'map', ...vdb, '--output', 'json'],
      ...['tidemark', 'dump', ...vdb, '-o', 'vdb.dirty.raw'],
      ...['qemu-img', 'convert', '-f', 'qcow2', '-O', 'qcow2', '/images/vdc.qcow2', 'vdc.full.qcow2'],
      ...['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', '/dev/vg/vdd', 'vdd.full.qcow2'],
    ])
  })

  it('says where backing files are now that were copied', () => {
    const { calls } = run(planToSh(some, { mapRules: [{ from: '/images', to: "/it's here" }] }))
    expect(calls.join(' ')).toContain("--map-source /images=/it's here -o vda.dirty.raw")
  })

  it('succeeds when there is nothing that it cannot do', () => {
    expect(run(planToSh(some)).status).toBe(0)
  })

  it('cannot be broken out of by names', () => {
    const evil = "/a\n'; touch pwned; $(touch pwned) `touch pwned` \\"
    const facts: BackupFacts = {
      domain: domain([disk('vda\ntouch pwned', evil)], 'web\ntouch pwned'),
      checkpoints: [checkpoint('cp1')],
      chains: new Map([['vda\ntouch pwned', [layer(evil, ['cp1'])]]]),
    }
    const script = planToSh(planBackup(facts, { incremental: 'cp1' }))
    const { status, calls } = run(script)
    expect(status).toBe(0)
    const both = `${evil}\n--bitmap\ncp1`
    const dump = `tidemark\ndump\n${both}\n-o\nvda_touch_pwned.dirty.raw`
    expect(calls.join('\n')).toBe(`tidemark\nmap\n${both}\n--output\njson\n${dump}`)
  })
})
