import { writeFileSync } from 'node:fs'
import { programPath, run, type TempDir, tempDir } from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bin, plainEnv } from './cli.js'

const esc = String.fromCharCode(27)
const hidden = `${esc}[?25l`
const shown = `${esc}[?25h`

const script = programPath('script')
describe.skipIf(script === undefined)(
  `a dump on a terminal${script === undefined ? ' [skipped: needs script (bsdutils)]' : ''}`,
  () => {
    let dir: TempDir
    beforeAll(() => {
      dir = tempDir()
      writeFileSync(dir.file('disk.raw'), Buffer.alloc(24 * 2 ** 20, 7))
    })
    afterAll(() => dir?.remove())

    /** A pipe that is read 1 MiB at a time makes it long work. */
    const reading = (pause: number) => `(while [ $(head -c 1M | wc -c) -gt 0 ]; do sleep ${pause}; done)`
    const slowly = reading(0.05)
    const onTerminal = async (line: string, env: Record<string, string> = {}): Promise<string> => {
      const { stdout } = await run('script', ['-qec', line, '/dev/null'], {
        accept: 'any',
        env: { ...plainEnv, TERM: 'xterm', ...env },
      })
      return stdout
    }
    const dump = (...more: string[]) =>
      `'${process.execPath}' '${bin}' dump '${dir.file('disk.raw')}' ${more.join(' ')}`

    it('guest data do not go there', async () => {
      const text = await onTerminal(`${dump()}; echo $?`)
      expect(text).toMatch(/^.*error:.* guest data are nothing for a terminal: give -o OUT.*\r\n64\r\n$/)
    })

    it('a bar tells how far it is, how fast and how long it takes; then it goes, and the cursor is back', async () => {
      const text = await onTerminal(`stty cols 80; ${dump()} | ${slowly}`)
      const bars = [...text.matchAll(/(\d+) % \[(=*)( *)\] {2}([\d.]+ [KM]iB)\/s {2}(\d+)s left/g)]
      expect(bars.length).toBeGreaterThan(3)
      const percents = bars.map(([, percent]) => Number(percent))
      expect(percents).toEqual([...percents].sort((a, b) => a - b))
      expect(percents[0]).toBeGreaterThan(0)
      for (const [bar, percent, full, empty] of bars) {
        expect(full!.length).toBe(Math.floor(((full!.length + empty!.length) * Number(percent)) / 100))
        expect(bar!.length).toBeLessThan(80)
      }
      expect(text.split(hidden)).toHaveLength(2)
      expect(text.split(shown)).toHaveLength(2)
      expect(text.indexOf(shown)).toBeGreaterThan(text.lastIndexOf('% ['))
      expect(text.trimEnd().endsWith('24 MiB written, 0 B zeros')).toBe(true)
    })

    it.each([
      ['--no-progress', ['--no-progress'], {}],
      ['--output json', ['--output', 'json'], {}],
      ['a terminal that can do nothing', [], { TERM: 'dumb' }],
    ])('no bar: %s', async (_, more, env) => {
      expect(await onTerminal(`${dump(...more)} | ${slowly}`, env)).not.toMatch(/%|\[|left/)
    })

    it('no bar where standard error is no terminal', async () => {
      expect(
        await onTerminal(`${dump()} 2> '${dir.file('err')}' | ${slowly}; cat '${dir.file('err')}'`),
      ).toBe('')
    })

    it('work that is done at once has none, just a word on what was done', async () => {
      expect(await onTerminal(dump('-o', dir.file('out')))).toBe('24 MiB written, 0 B zeros\r\n')
    })

    it('Ctrl-C gives the cursor back', async () => {
      // The shell waits for the bar, then ends the dump as the terminal would.
      const line = `${dump()} > '${dir.file('pipe')}' & sleep 2; kill -INT $!; wait $!; echo "status $?"`
      await run('mkfifo', [dir.file('pipe')])
      const reader = run('sh', ['-c', `${reading(0.2)} < '${dir.file('pipe')}'`])
      // Without job control a shell's background jobs ignore SIGINT until they ask for it, as Node does.
      const text = await onTerminal(line)
      await reader
      expect(text).toContain('% [')
      expect(text.indexOf(shown)).toBeGreaterThan(text.lastIndexOf('% ['))
      expect(text).toContain('status 130')
    })
  },
)
