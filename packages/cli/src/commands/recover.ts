import { type EditJournal, Qcow2Error, type Recovery, recoverImages } from '@tidemark/qcow2'
import { openFile, openJournalFile } from '@tidemark/qcow2/node'
import { identityOf } from '../bitmap/identity.js'
import { openTarget, readOnly } from '../bitmap/images.js'
import { checkOpenOptions, type EditOpenOptions } from '../bitmap/options.js'
import { UsageError } from '../errors.js'
import { type ExitStatus, exitStatus } from '../exit-status.js'
import type { Interruption } from '../interruption.js'
import type { Output } from '../output.js'
import { recoveryToJson, recoveryToText } from '../render/recovery.js'

/** `tidemark recover`: ends an edit of several images that was cut off. */
export async function recover(
  file: string,
  options: EditOpenOptions,
  interruption: Interruption,
  output: Output,
): Promise<ExitStatus> {
  if (file === '') throw new UsageError('the name of the journal is empty')
  checkOpenOptions(options)
  const dryRun = options.dryRun === true
  // It is short, and one that is cut off is begun again: but a half is no state to be left by a signal.
  const signal = interruption.hold()
  const journal = await openJournal(file, options)
  const names = new Map<string, string>()
  const open = (filename: string) => {
    // Before it is opened: held by its other name it would pass for another process's.
    const identity = identityOf(filename)
    const before = identity === undefined ? undefined : names.get(identity)
    if (before !== undefined) throw sameFile(file, before, filename)
    if (identity !== undefined) names.set(identity, filename)
    return openTarget(filename, options, output)
  }
  let recovery: Recovery
  try {
    recovery = await recoverImages(journal, { dryRun, open })
  } finally {
    await journal.storage.close()
  }
  if (signal.aborted && !dryRun) output.warn('the signal came too late: all of it is done')
  const shown = { journal: file, dryRun, recovery }
  if (output.format === 'json') await output.json(recoveryToJson(shown))
  else await output.write(recoveryToText(shown, output.colors))
  return exitStatus.ok
}

function sameFile(journal: string, before: string, filename: string): Qcow2Error {
  const message = `${journal}: ${before} and ${filename} are one and the same file`
  return new Qcow2Error('journal-invalid', message, { journal })
}

async function openJournal(file: string, options: EditOpenOptions): Promise<EditJournal> {
  if (!options.dryRun) return openJournalFile(file, { lock: options.unsafeNoLock ? 'none' : 'required' })
  try {
    const storage = readOnly(await openFile(file), true)
    return { storage, remove: storage.flush }
  } catch (error) {
    if ((error as Partial<Qcow2Error>).code !== 'image-missing') throw error
    throw new Qcow2Error('journal-missing', `${file}: there is no such journal`, { journal: file })
  }
}
