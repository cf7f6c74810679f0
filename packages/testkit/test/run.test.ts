import { existsSync, writeFileSync } from 'node:fs'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { installPeers, missingPeers, needs, RunError, run, runSync, withTempDir } from '../src/index.js'

describe('run', () => {
  const node = (script: string): [string, string[]] => [process.execPath, ['-e', script]]

  it('gives output, input and environment through', async () => {
    const script = 'process.stdin.pipe(process.stdout); console.error(process.env.TIDE, process.env.HOME)'
    const result = await run(...node(script), { input: 'in', env: { TIDE: 'x', HOME: undefined } })
    expect(result).toEqual({ stdout: 'in', stderr: 'x undefined\n', status: 0, signal: null })
  })

  it('a failure names the command and says what it said', async () => {
    const failing = run(...node('console.error("so sorry"); process.exit(3)'))
    await expect(failing).rejects.toThrow(/node.*-e.*exit status 3.*so sorry/s)
    expect(() => runSync(...node('process.exit(3)'))).toThrow(/exit status 3/)
    expect((await run(...node('process.exit(3)'), { accept: [3] })).status).toBe(3)
  })

  it('a signal is a failure with its name; a missing program too', async () => {
    await expect(run(...node('process.kill(process.pid, "SIGKILL")'))).rejects.toThrow(/SIGKILL/)
    await expect(run('no-such-program-x', [])).rejects.toThrow(RunError)
    expect(() => runSync('no-such-program-x', [])).toThrow(RunError)
  })

  it('ends what does not end', async () => {
    await expect(run(...node('setInterval(() => {}, 9)'), { timeout: 300 })).rejects.toThrow(
      /killed after 300/,
    )
  }, 20_000)
})

describe('needs', () => {
  afterEach(() => vi.unstubAllEnvs())

  it('labels what is missing, and fails in CI', () => {
    vi.stubEnv('PATH', '/nowhere')
    vi.stubEnv('CI', '')
    // nbdinfo is in no sbin folder, so an empty PATH hides it.
    expect(missingPeers('nbdinfo')).toEqual(['nbdinfo'])
    const need = needs('nbdinfo')
    expect(need).toEqual({ skip: true, label: ` [skipped: needs nbdinfo; install with: ${installPeers}]` })
    vi.stubEnv('CI', 'true')
    expect(() => needs('nbdinfo')).toThrow(/needs nbdinfo; install with: apt-get install/)
  })
})

describe('withTempDir', () => {
  it('is short, and gone afterwards, after an error too', async () => {
    let path = ''
    const work = withTempDir(dir => {
      path = dir.path
      writeFileSync(dir.file('x'), 'x')
      throw new Error('in the work')
    })
    await expect(work).rejects.toThrow('in the work')
    expect(path.length).toBeLessThan(40)
    expect(existsSync(path)).toBe(false)
  })
})
