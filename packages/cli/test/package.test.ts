import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { builtinModules } from 'node:module'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { run, withTempDir } from '@tidemark/testkit'
import { describe, expect, it } from 'vitest'
import { plainEnv, tidemark } from './cli.js'
import { images, top } from './webshop.js'

const folder = fileURLToPath(new URL('..', import.meta.url))
const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
const files = readdirSync(join(folder, 'dist')).filter(name => name.endsWith('.cjs'))
const bundle = files.map(name => readFileSync(join(folder, 'dist', name), 'utf8')).join('\n')

describe('the package', () => {
  it('has no runtime dependencies, but for one that may be missing', () => {
    for (const kind of ['dependencies', 'peerDependencies']) expect(manifest).not.toHaveProperty(kind)
    expect(manifest.optionalDependencies).toEqual({ koffi: '3.3.4' })
    const required = [...bundle.matchAll(/\brequire\("([^"]+)"\)/g)].map(([, name]) =>
      name!.replace(/^node:/, ''),
    )
    expect(required.length).toBeGreaterThan(3)
    const own = files.map(name => `./${name}`)
    const foreign = required.filter(name => !builtinModules.includes(name) && !own.includes(name))
    expect([...new Set(foreign)]).toEqual(['koffi'])
    // Only where a rejected promise is what its absence makes.
    expect(bundle.match(/\brequire\("koffi"\)/g)!.length).toBe(
      bundle.match(/Promise\.resolve\(\)\.then\(\(\)=>__toESM\(require\("koffi"\)/g)!.length,
    )
  })

  it('opens no connection and starts no program', () => {
    expect(bundle).not.toMatch(
      /\brequire\("(node:)?(net|http|https|http2|tls|dgram|dns|worker_threads|inspector|child_process)"\)/,
    )
  })

  it('is small, and what is not needed is not loaded', () => {
    const sizes = Object.fromEntries(files.map(name => [name, statSync(join(folder, 'dist', name)).size]))
    expect(Object.keys(sizes).sort()).toEqual([
      'bitmap-several.cjs',
      'bitmap.cjs',
      'checkpoint-list.cjs',
      'checkpoint-reconcile.cjs',
      'checkpoint-redefine.cjs',
      'checkpoint-show.cjs',
      'dump.cjs',
      'info.cjs',
      'map.cjs',
      'plan-backup.cjs',
      'plan-operations.cjs',
      'progress-bar.cjs',
      'recover.cjs',
      'tidemark.cjs',
    ])
    expect(sizes['tidemark.cjs']).toBeLessThan(105_000)
    expect(sizes['info.cjs']).toBeLessThan(150_000)
    expect(sizes['bitmap.cjs']).toBeLessThan(170_000)
    expect(sizes['bitmap-several.cjs']).toBeLessThan(190_000)
    expect(sizes['recover.cjs']).toBeLessThan(150_000)
    expect(sizes['map.cjs']).toBeLessThan(170_000)
    // A zstd decoder is in it, for Node below 22.15.
    expect(sizes['dump.cjs']).toBeLessThan(260_000)
    expect(sizes['progress-bar.cjs']).toBeLessThan(40_000)
    expect(sizes['plan-backup.cjs']).toBeLessThan(350_000)
    for (const command of ['list', 'show', 'reconcile', 'redefine']) {
      expect(sizes[`checkpoint-${command}.cjs`], command).toBeLessThan(270_000)
    }
  })

  it('names whose code is in it', () => {
    const notices = readFileSync(join(folder, 'dist/THIRD-PARTY-NOTICES.txt'), 'utf8')
    for (const name of ['commander', 'picocolors', '@rgrove/parse-xml', 'cli-progress', 'zstddec'])
      expect(notices).toContain(`${name} `)
  })

  it("starts with V8's code cache, and without where V8 does not take it", () =>
    withTempDir(async dir => {
      await run('cp', ['-r', ...['package.json', 'bin', 'dist'].map(name => join(folder, name)), dir.path])
      const file = join(top, images, 'root.qcow2')
      const script = `
        const { load, loaded, cachePath } = require(${JSON.stringify(dir.file('bin/load.cjs'))})
        process.argv.splice(1, 0, 'tidemark')
        process.on('exit', () => {
          const taken = [...loaded].map(([name, { script }]) => [name, script.cachedDataRejected])
          console.error(JSON.stringify([taken, [...loaded.keys()].map(cachePath)]))
        })
        load('tidemark.cjs')`
      const info = async () => {
        const args = ['-e', script, '--', 'info', file]
        const { stdout, stderr } = await run(process.execPath, args, { env: plainEnv })
        const [taken, caches] = JSON.parse(stderr) as [[string, boolean | undefined][], string[]]
        return { stdout, taken: Object.fromEntries(taken), caches }
      }
      const cached = await info()
      expect(cached.taken).toEqual({ 'tidemark.cjs': false, 'info.cjs': false })
      expect(cached.stdout).toContain('monday')
      for (const cache of cached.caches) writeFileSync(cache, 'not what V8 wrote')
      expect(await info()).toMatchObject({
        stdout: cached.stdout,
        taken: { 'tidemark.cjs': true, 'info.cjs': true },
      })
      for (const cache of cached.caches) rmSync(cache)
      expect(await info()).toMatchObject({ stdout: cached.stdout, taken: {} })
    }))

  it.skipIf(process.arch !== 'x64')(
    "loads koffi's binary alone, and koffi's loader where it is not found",
    () =>
      withTempDir(async dir => {
        const start = async (bin: string) => {
          const file = dir.file('disk.qcow2')
          await run('cp', [join(top, images, 'root.qcow2'), file])
          const script = `
          process.argv.splice(1, 0, 'tidemark')
          process.on('exit', () => {
            console.error(JSON.stringify(Object.keys(require.cache).filter(path => path.includes('koffi'))))
          })
          require(${JSON.stringify(join(bin, 'load.cjs'))}).load('tidemark.cjs')`
          const args = ['-e', script, '--', 'bitmap', '--unsafe-no-lock', '--add', file, 'b']
          const { stderr } = await run(process.execPath, args, { env: { ...plainEnv, NODE_PATH: undefined } })
          return stderr
        }
        expect(JSON.parse(await start(join(folder, 'bin')))).toEqual([expect.stringMatching(/koffi\.node$/)])
        await run('cp', ['-r', ...['package.json', 'bin', 'dist'].map(name => join(folder, name)), dir.path])
        mkdirSync(dir.file('node_modules/koffi'), { recursive: true })
        writeFileSync(
          dir.file('node_modules/koffi/index.js'),
          "console.error('asked'); throw new Error('none')",
        )
        expect(await start(dir.file('bin'))).toMatch(/^asked\nwarning: no lock is held/)
      }),
  )

  it('runs from a folder of its own, with what would be published and nothing else', () =>
    withTempDir(async dir => {
      const files = ['package.json', ...manifest.files]
      await run('cp', ['-r', ...files.map((name: string) => join(folder, name)), dir.path])
      const copy = dir.file('bin/tidemark.cjs')
      const file = join(top, images, 'root.qcow2')
      const { stdout } = await run(process.execPath, [copy, 'info', file, '--output', 'json'], {
        cwd: dir.path,
        env: plainEnv,
      })
      expect(JSON.parse(stdout)).toMatchObject({ format: 'qcow2', filename: file })
    }))

  it('--version and -V are the version', async () => {
    for (const flag of ['--version', '-V']) {
      expect(await tidemark([flag])).toEqual({ status: 0, stdout: `${manifest.version}\n`, stderr: '' })
    }
  })

  it('the command at the top of the workspace is this one', async () => {
    const { stdout } = await run(join(top, 'node_modules/.bin/tidemark'), ['--version'], { env: plainEnv })
    expect(stdout).toBe(`${manifest.version}\n`)
  })
})
