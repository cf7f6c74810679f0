import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { type LibvirtLab, type RunResult, run, withTempDir } from '@tidemark/testkit'
import { bin, plainEnv } from './cli.js'

/**
 * Runs commands in a real `sh -e`, as a user would: `tidemark` is this one, and each `virsh` is carried out by the
 * lab's libvirt with just the words that the shell made of it.
 *
 * @param cwd where the commands make their files
 */
export async function runVirsh(lab: LibvirtLab, commands: string, cwd = lab.images): Promise<void> {
  await withTempDir(async dir => {
    const calls = dir.file('calls')
    const tool = (name: string, script: string) => {
      writeFileSync(dir.file(name), `#!/bin/sh\n${script}\n`)
      chmodSync(dir.file(name), 0o755)
    }
    // The lab's daemon wants its own user and environment: the words go there by a file, and the answer comes back.
    tool(
      'virsh',
      [
        `n=$(ls '${dir.path}' | grep -c '^call\\.')`,
        `printf '%s\\0' "$@" > '${calls}.tmp'; mv '${calls}.tmp' '${dir.path}/call.'$n`,
        `while [ ! -e '${dir.path}/done.'$n ]; do sleep 0.02; done`,
        `cat '${dir.path}/words.'$n >&2; exit $(cat '${dir.path}/done.'$n)`,
      ].join('\n'),
    )
    tool('tidemark', `exec '${process.execPath}' '${bin}' "$@"`)
    let ended: RunResult | undefined
    const shell = run('sh', ['-e'], {
      cwd,
      input: commands,
      accept: 'any',
      timeout: 60_000,
      env: { ...plainEnv, PATH: `${dir.path}:${process.env.PATH}` },
    }).then(result => {
      ended = result
    })
    for (let call = 0; ended === undefined; ) {
      let words: string
      try {
        words = readFileSync(`${dir.path}/call.${call}`, 'utf8')
      } catch {
        await new Promise(resolve => setTimeout(resolve, 10))
        continue
      }
      const { status, stderr } = await lab.tryVirsh(...seen(lab, cwd, words.split('\0').slice(0, -1)))
      writeFileSync(`${dir.path}/words.${call}`, stderr)
      writeFileSync(`${dir.path}/done.${call}`, String(status))
      call++
    }
    await shell
    if (ended?.status !== 0) throw new Error(`${commands}\n${ended?.stderr}\n${ended?.stdout}`)
  })
}

/** The words, with files named so that virsh finds them from its own folder, and given to its user. */
function seen(lab: LibvirtLab, cwd: string, words: readonly string[]): readonly string[] {
  return words.map(word => {
    const path = resolve(cwd, word)
    if (!word.endsWith('.xml') || !existsSync(path)) return word
    lab.own(dirname(path))
    lab.own(path)
    return path
  })
}
