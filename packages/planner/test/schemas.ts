/** libvirt's own schemas, where libvirt is installed: with `CI=true` they must be. */
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { missingPeers, run, withTempDir } from '@tidemark/testkit'

const FOLDER = '/usr/share/libvirt/schemas'
const lacking = [
  ...missingPeers('xmllint'),
  ...['domainbackup.rng', 'domaincheckpoint.rng'].filter(name => !existsSync(join(FOLDER, name))),
]
if (lacking.length > 0 && process.env.CI === 'true') throw new Error(`this test needs ${lacking.join(', ')}`)

export const haveSchemas = lacking.length === 0
/** For the names of suites: says what is missing when they are skipped. */
export const schemasNote = haveSchemas
  ? ''
  : ` [skipped: needs ${lacking.join(', ')}; install with: apt-get install libxml2-utils libvirt-daemon-system]`

/** Holds documents against a schema, all in one run of xmllint; the indices of those that fail, with its words. */
export async function schemaFaults(
  schema: 'domainbackup' | 'domaincheckpoint',
  documents: readonly string[],
): Promise<readonly (readonly [index: number, words: string])[]> {
  return await withTempDir(async dir => {
    const names = documents.map((_, index) => `${index}.xml`)
    for (const [index, name] of names.entries()) writeFileSync(dir.file(name), documents[index]!)
    const args = ['--noout', '--relaxng', join(FOLDER, `${schema}.rng`), ...names]
    const { stderr } = await run('xmllint', args, { cwd: dir.path, accept: 'any' })
    return names.flatMap((name, index) => {
      if (stderr.includes(`\n${name} validates`) || stderr.startsWith(`${name} validates`)) return []
      return [
        [
          index,
          stderr
            .split('\n')
            .filter(line => line.startsWith(name))
            .join(' | '),
        ] as const,
      ]
    })
  })
}
