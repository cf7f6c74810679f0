import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { MAX_XML_DEPTH, MAX_XML_LENGTH, parseDomain, XmlError } from '../src/index.js'
import { parseXml } from '../src/xml/document.js'
import { textOf } from '../src/xml/elements.js'

const GOOD = `<domain type='kvm'><name>web</name><devices><graphics passwd='SECRET'/>
<disk type='file' device='disk'><driver type='qcow2'/><source file='/SECRET/a.qcow2'/><target dev='vda'/></disk>
<!-- SECRET --><x><![CDATA[ SECRET < & ]]></x></devices></domain>`

function faultOf(xml: string): XmlError {
  try {
    parseXml(xml)
  } catch (error) {
    expect(error).toBeInstanceOf(XmlError)
    return error as XmlError
  }
  throw new Error('was accepted')
}

describe('declarations', () => {
  const laughs = `<?xml version="1.0"?>
<!DOCTYPE lolz [
 <!ENTITY lol "lol">
 <!ENTITY lol2 "&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;">
]>
<domain><name>&lol2;</name></domain>`

  it.each([
    ['DOCTYPE', laughs, 2],
    ['DOCTYPE', '<!DOCTYPE domain SYSTEM "file:///etc/passwd"><domain/>', 1],
    ['DOCTYPE', '<!doctype html><domain/>', 1],
    ['ENTITY', '<domain>\n<!ENTITY x "y"></domain>', 2],
    ['ELEMENT', '<!ELEMENT a ANY><domain/>', 1],
    ['markup', '<domain><![INCLUDE[x]]></domain>', 1],
  ])('%s is refused by name', (what, xml, line) => {
    const fault = faultOf(xml)
    expect(fault.message).toContain(`a ${what} declaration is refused`)
    expect(fault).toMatchObject({ code: 'invalid-xml', line, found: `<!${what}` })
  })

  it('inside a comment or CDATA is text', () => {
    expect(textOf(parseXml('<a><!-- <!DOCTYPE x> --><![CDATA[<!DOCTYPE y>]]></a>'))).toBe('<!DOCTYPE y>')
  })

  it('entities that nobody declared are refused', () => {
    expect(faultOf('<domain>&lol;</domain>').message).toContain('an entity that XML does not define')
  })
})

describe('what would exhaust', () => {
  it('more disks than any machine has', () => {
    const disks = (count: number) =>
      Array.from({ length: count }, (_, i) => `<disk><target dev='sd${i}'/></disk>`).join('')
    const xml = (count: number) => `<domain><name>d</name><devices>${disks(count)}</devices></domain>`
    expect(parseDomain(xml(4096)).disks).toHaveLength(4096)
    expect(() => parseDomain(xml(4097))).toThrow('too many disks')
  })

  it.each([
    ['depth', '<a>'.repeat(MAX_XML_DEPTH + 1) + '</a>'.repeat(MAX_XML_DEPTH + 1), 'nested more than'],
    ['depth without an end', '<a>'.repeat(1_000_000), 'nested more than'],
    ['length', ' '.repeat(MAX_XML_LENGTH + 1), 'too long'],
    ['tags', `<a>${'<b/>'.repeat(300_000)}</a>`, 'too many tags'],
    ['comments', `<a>${'<!---->'.repeat(300_000)}</a>`, 'too many tags'],
    [
      'attributes',
      `<a ${Array.from({ length: 5000 }, (_, index) => `x${index}=''`).join(' ')}/>`,
      'too many attributes',
    ],
    ['angles', '<'.repeat(5_000_000), 'well-formed'],
    ['quotes', `<a ${'"'.repeat(5_000_000)}`, 'too many attributes'],
  ])('%s is refused', (_what, xml, message) => {
    expect(faultOf(xml).message).toContain(message)
  })

  it('a document at the ceilings is read', () => {
    expect(parseXml('<a>'.repeat(MAX_XML_DEPTH) + '</a>'.repeat(MAX_XML_DEPTH)).name).toBe('a')
    expect(textOf(parseXml(`<a>${'x'.repeat(MAX_XML_LENGTH - 7)}</a>`))).toHaveLength(MAX_XML_LENGTH - 7)
  })
})

describe('not well-formed', () => {
  it.each([
    ['', 'no element'],
    ['   ', 'no element'],
    ['plain text', 'no element'],
    ['<a>', 'not closed'],
    ['<a', ''],
    ['<a><b></a></b>', 'not closed'],
    ['<a/><b/>', 'outside its root'],
    ['<a/>tail', 'outside its root'],
    ['<a x=1/>', 'attribute'],
    ['<a x/>', 'attribute'],
    ["<a x='1' x='2'/>", 'twice'],
    ["<a x='<'/>", 'attribute'],
    ['<a>&amp</a>', 'entity'],
    ['<a>&amp b;</a>', 'entity'],
    ['<a>&#0;</a>', 'forbids'],
    ['<a>&#x1F;</a>', 'forbids'],
    ['<a>&#xD800;</a>', 'forbids'],
    ['<a>&#x110000;</a>', 'forbids'],
    ['<a>\u0000</a>', 'U+0000'],
    ['<a>\u0007</a>', 'U+0007'],
    ['<a>\uffff</a>', 'U+ffff'],
    ['<q:a/>', 'prefix is not declared'],
    ["<a q:x=''/>", 'prefix is not declared'],
    ["<a><b xmlns:q='u'/><q:c/></a>", 'prefix is not declared'],
    ['<a><!-- -- --></a>', ''],
    ['<a><![CDATA[</a>', ''],
    ['<a><?xml version="1.0"?></a>', ''],
  ])('%j is an error', (xml, message) => {
    expect(faultOf(xml).message).toContain(message)
  })

  it('gives line and column', () => {
    expect(faultOf('<a>\n  <b>\n  </c>\n</a>')).toMatchObject({
      line: expect.any(Number),
      column: expect.any(Number),
    })
    expect(faultOf('<a>\n <b \u0001/></a>')).toMatchObject({ line: 2, column: 5 })
  })
})

describe('legal if odd', () => {
  it('a byte order mark, a replacement character, U+2028, emoji, CRLF', () => {
    const xml = "\ufeff<?xml version='1.0' encoding='UTF-8'?>\r\n<a b='\u2028\ufffd😀'>x\r\ny</a>"
    const root = parseXml(xml)
    expect(root.attributes.b).toBe('\u2028\ufffd😀')
    expect(textOf(root)).toBe('x\ny')
  })
})

describe('mutated documents', () => {
  const anyMutation = fc.record({
    at: fc.nat(GOOD.length - 1),
    drop: fc.integer({ min: 0, max: 12 }),
    insert: fc.oneof(
      fc.constantFrom('<', '>', '&', '"', "'", '/', '<!', '<?', ']]>', '-->', '\0', '&x;', '<disk>', '='),
      fc.string({ maxLength: 4 }),
    ),
  })

  it('give a domain or a typed error that quotes nothing', () => {
    fc.assert(
      fc.property(fc.array(anyMutation, { minLength: 1, maxLength: 4 }), mutations => {
        let xml = GOOD
        for (const { at, drop, insert } of mutations) xml = xml.slice(0, at) + insert + xml.slice(at + drop)
        try {
          parseDomain(xml)
        } catch (error) {
          expect(error).toBeInstanceOf(XmlError)
          expect(`${(error as XmlError).stack}${JSON.stringify(error)}`).not.toMatch(/SECRET/)
          expect((error as XmlError).cause).toBeUndefined()
        }
      }),
      { numRuns: 3000 },
    )
  })

  it('truncated anywhere, too', () => {
    for (let length = 0; length < GOOD.length; length++) {
      expect(() => parseDomain(GOOD.slice(0, length))).toThrow(XmlError)
    }
  })
})

describe('large documents', () => {
  const long = 8 * 1024 * 1024
  /** 400 levels with 400 prefixes each, and 90,000 elements in the innermost that declare one and use the outermost one. */
  const declarations = () => {
    const level = (at: number) =>
      `<a ${Array.from({ length: 400 }, (_, index) => `xmlns:p${at}x${index}='u'`).join(' ')}>`
    const levels = Array.from({ length: 400 }, (_, at) => level(at)).join('')
    return `${levels}${"<p0x0:b xmlns:q='u'/>".repeat(90_000)}${'</a>'.repeat(400)}`
  }

  it.each([
    ['an attribute', `<a b='${'x'.repeat(long)}'/>`],
    ['an attribute of references', `<a b='${'&amp;'.repeat(long / 8)}'/>`],
    ['an attribute outside the BMP', `<a b='${'😀'.repeat(long / 4)}'/>`],
    ['text of references', `<a>${'&#65;'.repeat(long / 8)}</a>`],
    ['line separators', `<a>${'\u2028'.repeat(long)}</a>`],
    ['a name', `<${'a'.repeat(long)}/>`],
    ['a comment', `<a><!--${' -'.repeat(long / 4)} --></a>`],
    ['a CDATA section', `<a><![CDATA[${']'.repeat(long)}]]></a>`],
    ['declarations of prefixes at every level', declarations()],
    ['tags outside the BMP', `<a>😀${'<b c="1"/>'.repeat(150_000)}</a>`],
  ])('%s of some MiB is read in its time', (_what, xml) => {
    // What is not linear takes minutes here, and ends at the limit of every test.
    expect(parseXml(xml).name).not.toBe('')
  })

  it('the place of an element is right, whatever comes before it', () => {
    const xml = `<domain><name>😀\u2028é</name>\n<devices>\n 😀 <disk/></devices></domain>`
    expect(() => parseDomain(xml)).toThrow(expect.objectContaining({ line: 3, column: 5 }))
  })
})
