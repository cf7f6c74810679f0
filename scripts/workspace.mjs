// Installs and builds, with nothing but Node and npm on the machine, and only what has changed since last time.
// Everything goes to stderr: stdout belongs to whatever runs next.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = dirname(dirname(fileURLToPath(import.meta.url)))
const bin = join(root, 'node_modules', '.bin')
const stamp = join(root, 'node_modules', '.tidemark-installed')

/** Programs that run here find turbo, pnpm and the rest first in node_modules. */
export const env = {
  ...process.env,
  PATH: `${bin}:${process.env.PATH}`,
  DO_NOT_TRACK: '1',
  TURBO_TELEMETRY_DISABLED: '1',
}

/** Makes the workspace ready: dependencies as the lock file has them, all packages built. */
export function prepare() {
  const wanted = fingerprint()
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== wanted) {
    const { packageManager } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
    step('Installing dependencies', 'npx', ['--yes', packageManager, 'install', '--frozen-lockfile'])
    writeFileSync(stamp, wanted)
  }
  step('Building', 'turbo', ['run', 'build', '--output-logs=errors-only', '--ui=stream'])
}

/** Runs a program in the foreground and ends with its status. */
export function runAndExit(command, args, options = {}) {
  const { status, signal, error } = spawnSync(command, args, { stdio: 'inherit', env, ...options })
  if (error) throw error
  if (signal) process.kill(process.pid, signal)
  process.exit(status ?? 1)
}

/** What `install` depends on. */
function fingerprint() {
  const files = ['package.json', 'pnpm-lock.yaml', 'pnpm-workspace.yaml']
  for (const name of readdirSync(join(root, 'packages'))) files.push(`packages/${name}/package.json`)
  const hash = createHash('sha256').update(`${process.version} ${process.platform} ${process.arch}`)
  for (const file of files.sort())
    if (existsSync(join(root, file))) hash.update(file).update(readFileSync(join(root, file)))
  return hash.digest('hex')
}

/** Quiet when it works; when not, everything that the program said. */
function step(what, command, args) {
  if (process.stderr.isTTY) process.stderr.write(`${what} …`)
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd: root, env, encoding: 'utf8' })
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K')
  if (status === 0) return
  process.stderr.write(
    `${stdout ?? ''}${stderr ?? ''}${error ? `${error.message}\n` : ''}${what} failed: ${command} ${args.join(' ')}\n`,
  )
  process.exit(1)
}
