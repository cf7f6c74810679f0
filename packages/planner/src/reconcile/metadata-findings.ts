/** What is wrong with the metadata themselves: files that libvirt leaves out, and their tree. */
import type { TreeProblem } from '../checkpoints/problems.js'
import type { CheckpointTree } from '../checkpoints/tree.js'
import type { BackupFacts, CheckpointFacts } from '../facts.js'
import { listNames } from '../nearest.js'
import { type Finding, finding } from './findings.js'
import { orphanBitmaps } from './order-queries.js'
import { isSoundOrphan } from './rebuild.js'
import type { Ways } from './ways.js'

/** A checkpoint's file that could not be used, and why. */
export interface UnreadableFile {
  readonly file: string
  readonly message: string
}

export function metadataFindings(
  facts: BackupFacts,
  tree: CheckpointTree,
  ways: Ways,
  unreadable: readonly UnreadableFile[],
  files: ReadonlyMap<CheckpointFacts, string>,
): readonly Finding[] {
  const lost = unreadable.map(({ file, message }) =>
    finding(
      'metadata-unreadable',
      'error',
      `${file} is no checkpoint that can be read, so libvirt leaves it out: ${message}. If its bitmaps are there, ` +
        'the checkpoint can be made of them.',
      { filename: file },
      [ways.setAside(file)],
    ),
  )
  const skipped = tree.names.flatMap(name => {
    const why = tree.get(name)?.libvirtSkips
    if (why === undefined) return []
    const message = `libvirt does not load checkpoint '${name}': ${why}. For libvirt its bitmaps are in nobody's use.`
    return [finding('metadata-not-loaded', 'error', message, { checkpoint: name }, [ways.redefine(name)])]
  })
  const adoptable = new Set(
    tree.problems.some(({ code }) => code === 'checkpoint-parent-missing')
      ? orphanBitmaps(facts)
          .filter(orphan => orphan.unfit !== 'not-a-name' && isSoundOrphan(facts, orphan))
          .map(({ name }) => name)
      : [],
  )
  const inTree = tree.problems.map(problem => treeFinding(problem, facts, ways, files, adoptable))
  return [...lost, ...skipped, ...inTree]
}

function treeFinding(
  problem: TreeProblem,
  facts: BackupFacts,
  ways: Ways,
  files: ReadonlyMap<CheckpointFacts, string>,
  adoptable: ReadonlySet<string>,
): Finding {
  switch (problem.code) {
    case 'checkpoint-parent-missing': {
      const { checkpoint, parent } = problem
      const there = adoptable.has(parent)
      const message =
        `Checkpoint '${checkpoint}' names '${parent}' as its parent, which has no metadata` +
        `${there ? ', but bitmaps' : ''}. libvirt has no current checkpoint, and a new one gets no parent.`
      return finding(problem.code, 'error', message, { checkpoint }, [
        there ? ways.adopt(parent) : undefined,
        ways.line(),
      ])
    }
    case 'checkpoint-cycle': {
      const message = `Checkpoints ${listNames(problem.checkpoints)} are each other's parents in a circle; libvirt breaks it somewhere.`
      return finding(problem.code, 'error', message, { checkpoint: problem.checkpoints[0] }, [ways.line()])
    }
    case 'checkpoint-branched': {
      const { parent, checkpoints } = problem
      const what =
        parent === undefined
          ? `Checkpoints ${listNames(checkpoints)} have no parent`
          : `Checkpoints ${listNames(checkpoints)} are all children of '${parent}'`
      const message = `${what}: libvirt has no current checkpoint, and a new one begins a tree of its own.`
      return finding(problem.code, 'warning', message, { checkpoint: checkpoints[0] }, [ways.line()])
    }
    case 'checkpoint-duplicate': {
      const { checkpoint, copies } = problem
      const extra = extraFiles(checkpoint, facts, files)
      const message =
        `${copies} files are of a checkpoint named '${checkpoint}'${extra.length === 0 ? '' : `; libvirt's own is ${extra.kept}`}. ` +
        'Which one libvirt takes is a matter of chance.'
      const aside = extra.others.map(file => ways.setAside(file)).filter(each => each !== undefined)
      const all = aside[0] && { ...aside[0], commands: aside.flatMap(({ commands }) => commands) }
      return finding(problem.code, 'error', message, { checkpoint }, [all])
    }
  }
}

/** All but the file that libvirt writes itself, which has the checkpoint's name; or but the first. */
function extraFiles(name: string, { checkpoints }: BackupFacts, files: ReadonlyMap<CheckpointFacts, string>) {
  const own = checkpoints
    .filter(checkpoint => checkpoint.name === name)
    .map(checkpoint => files.get(checkpoint))
    .filter(file => file !== undefined)
  const kept = own.find(file => file.endsWith(`/${name}.xml`)) ?? own[0]
  return { length: own.length, kept, others: own.filter(file => file !== kept) }
}
