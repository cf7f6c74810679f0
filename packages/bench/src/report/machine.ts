import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'

/** What the figures depend on; nothing that tells whose machine it is. */
export interface Machine {
  cpu: string
  cores: number
  memoryBytes: number
  platform: string
  versions: Record<string, string>
}

const firstLine = (program: string): string => {
  const { stdout } = spawnSync(program, ['--version'], { encoding: 'utf8' })
  return stdout ? stdout.split('\n', 1)[0]!.trim() : 'missing'
}

/** Asks the machine and the programs. */
export function describeMachine(): Machine {
  const { devDependencies } = JSON.parse(
    readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
  ) as {
    devDependencies: Record<string, string>
  }
  const libraries = ['typedfastbitset', 'fastbitset', 'roaring-wasm', 'koffi']
  return {
    cpu: `${cpus()[0]?.model.trim() ?? 'unknown'}${instructionSets()}`,
    cores: cpus().length,
    memoryBytes: totalmem(),
    platform: `${process.platform} ${process.arch}`,
    versions: {
      Node: process.version,
      QEMU: firstLine('qemu-img'),
      gcc: firstLine('gcc'),
      ...Object.fromEntries(libraries.map(name => [name, devDependencies[name] ?? 'missing'])),
    },
  }
}

/** A hypervisor may hide the model; what gcc's native code can use is then told by the flags. */
function instructionSets(): string {
  try {
    const flags = new Set(
      /^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1]?.trim().split(' '),
    )
    const known = ['avx2', 'avx512bw', 'avx512_vpopcntdq'].filter(flag => flags.has(flag))
    return known.length > 0 ? ` (${known.join(', ')})` : ''
  } catch {
    return ''
  }
}
