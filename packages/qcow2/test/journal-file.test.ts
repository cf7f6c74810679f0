// The journal of an edit of several images as a file: who holds it, and what is removed in the end.
import { existsSync, lstatSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import { tempDir, writeQcow2 } from '@tidemark/testkit'
import { afterAll, describe, expect, it } from 'vitest'
import { editImages, type ImageEdit, Qcow2Error, recoverImages, type WritableStorage } from '../src/index.js'
import { createJournalFile, openJournalFile, openWritableFile } from '../src/node/index.js'

const dir = tempDir()
afterAll(() => dir.remove())

let serial = 0
async function edits(): Promise<ImageEdit[]> {
  const opened: ImageEdit[] = []
  for (let i = 0; i < 2; i++) {
    const filename = dir.file(`i${serial++}.qcow2`)
    writeQcow2(filename, { bitmaps: [{ name: 'a', dirty: [0] }] })
    opened.push({
      filename,
      storage: await openWritableFile(filename),
      actions: [{ action: 'add', name: 'b' }],
    })
  }
  return opened
}
const closeAll = (opened: readonly ImageEdit[]) => Promise.all(opened.map(({ storage }) => storage.close()))

/** Edits as the disk under the last image dies: nothing can be put back in it, and the journal stays. */
async function cutOff(journal: string): Promise<void> {
  const opened = await edits()
  const dying: WritableStorage = opened[1]!.storage
  const dead = async () => {
    throw new Qcow2Error('write-failed', 'dead')
  }
  dying.flush = () => {
    dying.flush = dying.writeFrom = dead
    return dead()
  }
  const edit = editImages(opened, { journal: () => createJournalFile(journal) })
  await expect(edit).rejects.toMatchObject({ code: 'write-failed', details: { unfinished: true } })
  await closeAll(opened)
}

describe.skipIf(process.platform !== 'linux')('the journal of an edit', () => {
  it('is closed when the edit has ended, well or not', async () => {
    const journals: Awaited<ReturnType<typeof createJournalFile>>[] = []
    const make = async () => {
      journals.push(await createJournalFile(dir.file('closed')))
      return journals.at(-1)!
    }
    const opened = await edits()
    await editImages(opened, { journal: make })
    opened[1]!.storage.flush = async () => {
      throw new Qcow2Error('write-failed', 'dead')
    }
    const more = opened.map(each => ({ ...each, actions: [{ action: 'remove', name: 'b' }] as const }))
    await expect(editImages(more, { journal: make })).rejects.toMatchObject({ code: 'write-failed' })
    expect(journals.length).toBe(2)
    for (const { storage } of journals) await expect(storage.flush()).rejects.toThrow('is closed')
    await closeAll(opened)
  })

  it('that stays is recovery’s, in the same process too', async () => {
    const file = dir.file('stays')
    await cutOff(file)
    const journal = await openJournalFile(file)
    expect(await recoverImages(journal, { open: openWritableFile })).toMatchObject({ outcome: 'back' })
    await journal.storage.close()
    expect(existsSync(file)).toBe(false)
  })

  it('named by a link is removed itself: what stays is the link', async () => {
    const [file, link] = [dir.file('itself'), dir.file('link')]
    await cutOff(file)
    symlinkSync(file, link)
    const journal = await openJournalFile(link)
    await recoverImages(journal, { open: openWritableFile })
    await journal.storage.close()
    expect(existsSync(file)).toBe(false)
    expect(lstatSync(link).isSymbolicLink()).toBe(true)
  })

  it('that another file has taken the place of is let be', async () => {
    const file = dir.file('replaced')
    const journal = await createJournalFile(file)
    // As by mv: another inode.
    writeFileSync(dir.file('other'), 'other')
    renameSync(dir.file('other'), file)
    await journal.remove()
    await journal.storage.close()
    expect(existsSync(file)).toBe(true)
  })
})
