import { fileURLToPath } from 'node:url'
import { type RunOptions, run } from '@tidemark/testkit'

/** The built command, as `node_modules/.bin/tidemark` starts it. */
export const bin = fileURLToPath(new URL('../bin/tidemark.cjs', import.meta.url))

export interface CliResult {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

/** What a user's own settings would change; certificates make Node start slowly. */
export const plainEnv: NonNullable<RunOptions['env']> = {
  NODE_EXTRA_CA_CERTS: undefined,
  NO_COLOR: undefined,
  FORCE_COLOR: undefined,
  COLUMNS: undefined,
}

/** Runs the built command to its end. Any exit status is an answer. */
export async function tidemark(args: readonly string[], options: RunOptions = {}): Promise<CliResult> {
  const { status, stdout, stderr } = await run(process.execPath, [bin, ...args], {
    ...options,
    env: { ...plainEnv, ...options.env },
    accept: 'any',
  })
  return { status, stdout, stderr }
}

/**
 * Runs it with `--output json` and gives what stdout holds.
 *
 * @throws Error when the exit status is not the wanted one, or stdout is not one JSON document
 */
export async function tidemarkJson<T>(
  args: readonly string[],
  options: RunOptions & { readonly status?: number } = {},
): Promise<T> {
  const { status: wanted = 0, ...rest } = options
  const { status, stdout, stderr } = await tidemark([...args, '--output', 'json'], rest)
  if (status !== wanted) {
    throw new Error(`tidemark ${args.join(' ')}: exit status ${status}, not ${wanted}\n${stderr || stdout}`)
  }
  return JSON.parse(stdout) as T
}

/** An error of `--output json`: one object on stderr, nothing on stdout. */
export interface JsonError {
  readonly code: string
  readonly message: string
  readonly [detail: string]: unknown
}

/** Runs it with `--output json` and gives the error. @throws Error when it is not told as the contract says */
export async function tidemarkError(
  args: readonly string[],
  options: RunOptions = {},
): Promise<{ status: number; error: JsonError }> {
  const { status, stdout, stderr } = await tidemark([...args, '--output', 'json'], options)
  if (stdout !== '') throw new Error(`stdout is not empty: ${stdout}`)
  if (!/^\{.*\}\n$/.test(stderr)) throw new Error(`stderr is not one JSON line: ${stderr}`)
  return { status, error: (JSON.parse(stderr) as { error: JsonError }).error }
}
