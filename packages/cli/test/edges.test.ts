import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, statSync } from 'node:fs'
import { childEnv, programPath, run, type TempDir, tempDir, writeQcow2 } from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bin, plainEnv, tidemark, tidemarkJson } from './cli.js'
import { planArgs, top } from './webshop.js'

const GiB = 2 ** 30
const TiB = 2 ** 40

/** What became of it, with the most memory that it ever had. */
interface Ended {
  readonly status: number | null
  readonly stderr: string
  readonly stdoutBytes: number
  readonly peakKiB: number
  readonly milliseconds: number
}

/** Runs tidemark and reads `limit` bytes of its output before it closes the pipe; `act` is called at its first. */
async function watch(
  args: readonly string[],
  options: { limit?: number; stdout?: string; act?: (pid: number) => void; slow?: boolean } = {},
): Promise<Ended> {
  const started = performance.now()
  // The peak is read from /proc by a hook in the process itself, as it ends.
  const peak = `process.on('exit',()=>{const r=process.resourceUsage().maxRSS;require('fs').writeSync(3,String(r))})`
  const out = options.stdout === undefined ? ('pipe' as const) : openSync(options.stdout, 'w')
  const hook = [
    '--import',
    `data:text/javascript,import{createRequire}from'node:module';const require=createRequire('/');${encodeURIComponent(peak)}`,
  ]
  const child = spawn(process.execPath, [...hook, bin, ...args], {
    env: childEnv(plainEnv),
    stdio: ['ignore', out, 'pipe', 'pipe'],
  })
  if (typeof out === 'number') closeSync(out)
  let stdoutBytes = 0
  let stderr = ''
  let peakKiB = ''
  child.stderr!.on('data', piece => (stderr += piece))
  child.stdio[3]!.on('data', (piece: Buffer) => (peakKiB += piece.toString()))
  child.stdout?.on('data', (piece: Buffer) => {
    if (stdoutBytes === 0) options.act?.(child.pid!)
    stdoutBytes += piece.length
    if (stdoutBytes >= (options.limit ?? Number.POSITIVE_INFINITY)) child.stdout!.destroy()
    else if (options.slow) {
      child.stdout!.pause()
      setTimeout(() => child.stdout!.resume(), 1)
    }
  })
  const [status] = (await once(child, 'close')) as [number | null]
  const milliseconds = performance.now() - started
  return { status, stderr, stdoutBytes, peakKiB: Number(peakKiB), milliseconds }
}

describe('where the output goes, and how much there is of it', () => {
  let dir: TempDir
  const alternating = new Uint8Array(65536).fill(0x55)
  beforeAll(() => {
    dir = tempDir()
    // 128 MiB of bitmap, half of its bits set, each beside a clear one.
    const table = Array<Uint8Array>(2048).fill(alternating)
    writeQcow2(dir.file('dense.qcow2'), {
      virtualSize: 4 * TiB,
      bitmaps: [{ name: 'b', granularityBits: 12, table }],
    })
    writeQcow2(dir.file('many.qcow2'), {
      virtualSize: 2 * GiB,
      bitmaps: [{ name: 'b', granularityBits: 12, table: [alternating], fill: 'zeros' }],
    })
    const huge = { virtualSize: 16 * TiB }
    writeQcow2(dir.file('zeros.qcow2'), { ...huge, bitmaps: [{ name: 'b', granularityBits: 12 }] })
    writeQcow2(dir.file('ones.qcow2'), {
      ...huge,
      bitmaps: [{ name: 'b', granularityBits: 12, fill: 'ones' }],
    })
  }, 600_000)
  afterAll(() => dir?.remove())

  const mapOf = (name: string, ...more: string[]): string[] => [
    ...['map', dir.file(`${name}.qcow2`), '--bitmap', 'b'],
    ...more,
  ]
  const json = ['--output', 'json']

  it.each([[[]], [json], [['--format', 'ndjson']]])(
    'a reader that goes away ends it, quietly: %j',
    async more => {
      for (const limit of [1, 1_000_000]) {
        const ended = await watch(mapOf('dense', ...more), { limit })
        expect(ended).toMatchObject({ status: 141, stderr: '' })
        expect(ended.milliseconds).toBeLessThan(5000)
      }
    },
  )

  it('in a shell: | head -1', async () => {
    const line = `"${process.execPath}" "${bin}" ${mapOf('dense', ...json).join(' ')} | head -1`
    expect(await run('sh', ['-c', line], { env: plainEnv })).toMatchObject({ stdout: '[\n', stderr: '' })
  })

  it.each([
    ['map', () => mapOf('many')],
    ['map, JSON', () => mapOf('many', ...json)],
    ['info', () => ['info', dir.file('many.qcow2')]],
    ['info, JSON', () => ['info', dir.file('many.qcow2'), ...json]],
    ['plan', () => planArgs('monday', '--libvirt-root', `${top}/examples/webshop/libvirt`)],
    ['help', () => ['map', '--help']],
    ['version', () => ['--version']],
  ])('a full disk is an error: %s', async (_, args) => {
    const { status, stderr } = await watch(args(), { stdout: '/dev/full' })
    expect(status).toBe(1)
    expect(stderr).toMatch(/cannot write the output: ENOSPC: no space left on device/)
    expect(stderr.trim().split('\n')).toHaveLength(1)
  })

  it('a slow reader gets everything, and no warning of Node', async () => {
    const ended = await watch(mapOf('many', ...json), { slow: true })
    expect(ended).toMatchObject({ status: 0, stderr: '' })
    expect(ended.stdoutBytes).toBe((await tidemark(mapOf('many', ...json))).stdout.length)
  })

  it.each(['SIGINT', 'SIGTERM'] as const)('%s ends it with 128 + its number', async signal => {
    const { status, stderr } = await watch(mapOf('dense', ...json), { act: pid => process.kill(pid, signal) })
    expect({ status, stderr }).toEqual({ status: signal === 'SIGINT' ? 130 : 143, stderr: '' })
  })

  it('16 TiB at 4 KiB, where the bitmap is all zeros or all ones', async () => {
    for (const [name, type] of [
      ['zeros', 0],
      ['ones', 1],
    ] as const) {
      const map = await tidemarkJson(mapOf(name))
      const description = type === 1 ? 'dirty' : 'clean'
      expect(map).toEqual([{ offset: 0, length: 16 * TiB, type, description }])
    }
    expect(await tidemarkJson(['info', '--count', dir.file('ones.qcow2')])).toMatchObject({
      'format-specific': { data: { bitmaps: [{ count: 2 ** 32, 'dirty-bytes': 16 * TiB }] } },
    })
  })

  it('memory does not grow with the bitmap', async () => {
    const counted = await watch(['info', '--count', dir.file('dense.qcow2')])
    expect(counted.status).toBe(0)
    const coarse = await watch(mapOf('dense', '--granularity', '1M', ...json))
    expect(coarse).toMatchObject({ status: 0, stdoutBytes: expect.any(Number) })
    // 4 million lines.
    const long = await watch(mapOf('dense', ...json), { limit: 300_000_000 })
    expect(long.status).toBe(141)
    // 128 MiB of bitmap; Node itself takes 40 to 50 MiB.
    for (const { peakKiB } of [counted, coarse, long]) {
      expect(peakKiB).toBeGreaterThan(20_000)
      expect(peakKiB).toBeLessThan(100_000)
    }
  }, 600_000)

  it('a file as output holds all of it', async () => {
    const file = dir.file('out.json')
    const { status } = await watch(mapOf('many', ...json), { stdout: file })
    expect(status).toBe(0)
    expect(statSync(file).size).toBe((await tidemark(mapOf('many', ...json))).stdout.length)
  })
})

const esc = String.fromCharCode(27)
const script = programPath('script')
describe.skipIf(script === undefined)(
  `on a terminal${script === undefined ? ' [skipped: needs script (bsdutils)]' : ''}`,
  () => {
    const onTerminal = async (
      args: string[],
      env: Record<string, string> = {},
      columns = 80,
    ): Promise<string> => {
      const quoted = [process.execPath, bin, ...args].map(word => `'${word}'`).join(' ')
      const line = `stty cols ${columns}; ${quoted}`
      const { stdout } = await run('script', ['-qec', line, '/dev/null'], {
        accept: 'any',
        cwd: top,
        env: { ...plainEnv, TERM: 'xterm', CI: undefined, ...env },
      })
      return stdout.replaceAll('\r\n', '\n')
    }

    it('colours, unless NO_COLOR is set; none in a pipe', async () => {
      expect(await onTerminal(planArgs('monday'))).toContain(`${esc}[`)
      expect(await onTerminal(planArgs('monday'), { NO_COLOR: '1' })).not.toContain(esc)
      expect(await onTerminal(planArgs('monday', ...['--output', 'json']))).not.toContain(esc)
      expect((await tidemark(planArgs('monday'), { cwd: top })).stdout).not.toContain(esc)
    })

    it.each([80, 100, 200])('a plan fits %i columns', async columns => {
      const text = await onTerminal(planArgs('monday'), { NO_COLOR: '1' }, columns)
      for (const line of text.split('\n')) expect([...line].length, line).toBeLessThanOrEqual(columns)
    })

    it('so does what is wrong with an image', async () => {
      const dir = tempDir()
      const file = dir.file('stale.qcow2')
      writeQcow2(file, { bitmapsConsistent: false, bitmaps: [{ name: 'b', flags: 3 }] })
      const text = await onTerminal(['info', file], { NO_COLOR: '1' })
      dir.remove()
      expect(text).toMatch(/^ {2}warning +0x58 +the bitmaps are stale/m)
      for (const line of text.split('\n')) expect([...line].length, line).toBeLessThanOrEqual(80)
    })

    it('a terminal that does not know its width gets 100 columns', async () => {
      const text = await onTerminal(planArgs('monday'), { NO_COLOR: '1' }, 0)
      expect(text).toBe((await tidemark(planArgs('monday'), { cwd: top })).stdout)
    })
  },
)
