import { readFileSync } from 'node:fs'
import { type RunOptions, type RunResult, run } from './run.js'
import { withTempDir } from './tmp.js'

/** Calls of the kernel that change a file. */
export const changingCalls = ['pwrite64', 'pwritev', 'ftruncate', 'fallocate'] as const
/** Those that make changes last. */
export const flushingCalls = ['fdatasync', 'fsync'] as const

export type FileCall = (typeof changingCalls)[number] | (typeof flushingCalls)[number]

/** The `nth` call of its kind to a file, from 1 on, and what becomes of it; the call itself is not made. */
export interface Injection {
  readonly call: FileCall
  readonly nth: number
  readonly what: 'signal=SIGKILL' | 'error=ENOSPC' | 'error=EIO' | 'retval=0'
}

/**
 * Runs a program under strace, which notes its calls to one file, and has one of them killed or failed. strace counts
 * calls by thread and by kind: Node's pool is therefore one thread here, and so must be that of others
 * (`oneThread` for qemu-img).
 *
 * @param file as the program names it
 */
export async function strace(
  command: readonly string[],
  file: string,
  { inject, ...options }: RunOptions & { readonly inject?: Injection } = {},
): Promise<RunResult & { readonly calls: readonly FileCall[] }> {
  return await withTempDir(async dir => {
    const log = dir.file('log')
    const calls = [...changingCalls, ...flushingCalls].join()
    const args = ['-f', '-P', file, '-o', log, '-e', `trace=${calls}`]
    if (inject !== undefined) args.push('-e', `inject=${inject.call}:${inject.what}:when=${inject.nth}`)
    const result = await run('strace', [...args, '--', ...command], {
      ...options,
      env: { ...options.env, UV_THREADPOOL_SIZE: '1' },
      accept: 'any',
    })
    // A call that goes on while others are shown has a second line, which begins otherwise.
    const names = readFileSync(log, 'utf8').matchAll(/^\d+\s+(\w+)\(/gm)
    return { ...result, calls: [...names].map(([, name]) => name as FileCall) }
  })
}

/** Each of some calls as what can be injected. */
export function everyCall(
  calls: readonly FileCall[],
  kinds: readonly FileCall[],
  what: Injection['what'],
): Injection[] {
  return kinds.flatMap(call =>
    Array.from({ length: calls.filter(each => each === call).length }, (_, i) => ({
      call,
      nth: i + 1,
      what,
    })),
  )
}

/** For qemu-img: all its calls from one thread. */
export const oneThread = ['--object', 'main-loop,id=main-loop,thread-pool-max=1'] as const
