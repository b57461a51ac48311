"""The words of the generated corpus, as tables: a line per word, its German forms first."""

from dataclasses import dataclass
from typing import Literal

Gender = Literal["m", "f", "n"]


@dataclass(frozen=True)
class Noun:
    """A noun; `oblique` is the singular outside the nominative, which differs for weak masculines (den Studenten)."""

    german: str
    gender: Gender
    german_plural: str
    english: str
    english_plural: str
    kind: str
    oblique: str


@dataclass(frozen=True)
class Verb:
    """A verb. A separable one has its `prefix` apart: `auf` + `machen`; the participle is whole: `aufgemacht`."""

    prefix: str
    infinitive: str
    present: str
    """Third person singular."""
    past: str
    participle: str
    auxiliary: Literal["haben", "sein"]
    frame: str
    """`none`, or the kind of its object with its case: `food:acc`, `person:dat`; `give` takes a person and a thing."""
    english: str
    english_present: str
    english_past: str
    english_participle: str


@dataclass(frozen=True)
class Word:
    """An adjective (its stem before endings in German) or an adverb."""

    german: str
    english: str


@dataclass(frozen=True)
class Place:
    """A place with the preposition that goes with it, in the dative."""

    preposition: str
    english_preposition: str
    noun: Noun


# german gender plural english [english plural]; a weak masculine has its oblique form after a slash
_PERSONS = """
Mann m Männer man men
Frau f Frauen woman women
Kind n Kinder child children
Lehrer m Lehrer teacher
Ärztin f Ärztinnen doctor
Student/Studenten m Studenten student
Nachbar/Nachbarn m Nachbarn neighbour
Freundin f Freundinnen friend
Bruder m Brüder brother
Schwester f Schwestern sister
Mutter f Mütter mother
Vater m Väter father
Mädchen n Mädchen girl
Junge/Jungen m Jungen boy
König m Könige king
Königin f Königinnen queen
Bäcker m Bäcker baker
Koch m Köche cook
Gärtner m Gärtner gardener
Polizist/Polizisten m Polizisten policeman policemen
Richterin f Richterinnen judge
Maler m Maler painter
Sängerin f Sängerinnen singer
Bauer/Bauern m Bauern farmer
Gast m Gäste guest
Onkel m Onkel uncle
Tante f Tanten aunt
Arbeiter m Arbeiter worker
Pilotin f Pilotinnen pilot
Soldat/Soldaten m Soldaten soldier
"""
_ANIMALS = """
Hund m Hunde dog
Katze f Katzen cat
Pferd n Pferde horse
Kuh f Kühe cow
Schaf n Schafe sheep sheep
Vogel m Vögel bird
Fisch m Fische fish fish
Maus f Mäuse mouse mice
Bär/Bären m Bären bear
Hase/Hasen m Hasen hare
Ziege f Ziegen goat
Huhn n Hühner chicken
Fuchs m Füchse fox foxes
Esel m Esel donkey
"""
_THINGS = """
Tür f Türen door
Fenster n Fenster window
Auto n Autos car
Fahrrad n Fahrräder bicycle
Tisch m Tische table
Stuhl m Stühle chair
Lampe f Lampen lamp
Schlüssel m Schlüssel key
Tasche f Taschen bag
Koffer m Koffer suitcase
Uhr f Uhren clock
Bild n Bilder picture
Messer n Messer knife knives
Teller m Teller plate
Glas n Gläser glass glasses
Flasche f Flaschen bottle
Schiff n Schiffe ship
Ball m Bälle ball
Hut m Hüte hat
Mantel m Mäntel coat
Hemd n Hemden shirt
Kleid n Kleider dress dresses
Schuh m Schuhe shoe
Ring m Ringe ring
Spiegel m Spiegel mirror
Korb m Körbe basket
Decke f Decken blanket
Kerze f Kerzen candle
Geschenk n Geschenke present
Werkzeug n Werkzeuge tool
"""
_TEXTS = """
Buch n Bücher book
Brief m Briefe letter
Zeitung f Zeitungen newspaper
Roman m Romane novel
Gedicht n Gedichte poem
Bericht m Berichte report
Nachricht f Nachrichten message
Karte f Karten card
Rechnung f Rechnungen bill
Geschichte f Geschichten story stories
Vertrag m Verträge contract
Lied n Lieder song
"""
_FOODS = """
Apfel m Äpfel apple
Birne f Birnen pear
Brot n Brote loaf loaves
Kuchen m Kuchen cake
Suppe f Suppen soup
Ei n Eier egg
Kartoffel f Kartoffeln potato potatoes
Tomate f Tomaten tomato tomatoes
Wurst f Würste sausage
Käse m Käse cheese
Pilz m Pilze mushroom
Kirsche f Kirschen cherry cherries
Nuss f Nüsse nut
Salat m Salate salad
Keks m Kekse biscuit
Pflaume f Pflaumen plum
"""
# preposition english noun
_PLACES = """
in in Garten m Gärten garden
in in Küche f Küchen kitchen
in in Schule f Schulen school
in in Stadt f Städte city cities
in in Dorf n Dörfer village
in in Wald m Wälder forest
in in Haus n Häuser house
in in Park m Parks park
in in Zimmer n Zimmer room
in in Kirche f Kirchen church churches
in in Hotel n Hotels hotel
in in Keller m Keller cellar
auf on Brücke f Brücken bridge
auf on Dach n Dächer roof
auf on Straße f Straßen street
auf on Berg m Berge mountain
auf on Wiese f Wiesen meadow
hinter behind Mauer f Mauern wall
hinter behind Scheune f Scheunen barn
vor outside Bahnhof m Bahnhöfe station
vor outside Theater n Theater theatre
neben beside Baum m Bäume tree
neben beside Fluss m Flüsse river
unter under Treppe f Treppen staircase
an at See m Seen lake
an at Strand m Strände beach beaches
"""
# [prefix|]infinitive present past participle auxiliary frame english [3sg past participle]; `.` is regular
_VERBS = """
schlafen schläft schlief geschlafen haben none sleep sleeps slept slept
lachen lacht lachte gelacht haben none laugh . . .
arbeiten arbeitet arbeitete gearbeitet haben none work . . .
warten wartet wartete gewartet haben none wait . . .
singen singt sang gesungen haben none sing sings sang sung
tanzen tanzt tanzte getanzt haben none dance . . .
schweigen schweigt schwieg geschwiegen haben none remain:silent remains:silent remained:silent remained:silent
weinen weint weinte geweint haben none cry cries cried cried
bleiben bleibt blieb geblieben sein none stay . . .
an|kommen kommt kam angekommen sein none arrive . . .
ein|schlafen schläft schlief eingeschlafen sein none fall:asleep falls:asleep fell:asleep fallen:asleep
auf|wachen wacht wachte aufgewacht sein none wake:up wakes:up woke:up woken:up
auf|stehen steht stand aufgestanden sein none get:up gets:up got:up got:up
ab|reisen reist reiste abgereist sein none depart . . .
zurück|kommen kommt kam zurückgekommen sein none come:back comes:back came:back come:back
ein|steigen steigt stieg eingestiegen sein none get:in gets:in got:in got:in
aus|ruhen ruht ruhte ausgeruht haben none rest . . .
sehen sieht sah gesehen haben any:acc see sees saw seen
suchen sucht suchte gesucht haben any:acc look:for looks:for looked:for looked:for
finden findet fand gefunden haben any:acc find finds found found
vergessen vergisst vergaß vergessen haben any:acc forget forgets forgot forgotten
malen malt malte gemalt haben any:acc paint . . .
beobachten beobachtet beobachtete beobachtet haben any:acc watch watches watched watched
fotografieren fotografiert fotografierte fotografiert haben any:acc photograph . . .
an|sehen sieht sah angesehen haben any:acc look:at looks:at looked:at looked:at
zurück|lassen lässt ließ zurückgelassen haben any:acc leave:behind leaves:behind left:behind left:behind
ab|holen holt holte abgeholt haben any:acc pick:up picks:up picked:up picked:up
mit|nehmen nimmt nahm mitgenommen haben any:acc take:along takes:along took:along taken:along
besuchen besucht besuchte besucht haben person:acc visit . . .
grüßen grüßt grüßte gegrüßt haben person:acc greet . . .
fragen fragt fragte gefragt haben person:acc ask . . .
lieben liebt liebte geliebt haben person:acc love . . .
kennen kennt kannte gekannt haben person:acc know knows knew known
verstehen versteht verstand verstanden haben person:acc understand understands understood understood
hören hört hörte gehört haben person:acc hear hears heard heard
ein|laden lädt lud eingeladen haben person:acc invite . . .
an|rufen ruft rief angerufen haben person:acc call . . .
kennen|lernen lernt lernte kennengelernt haben person:acc meet meets met met
auf|wecken weckt weckte aufgeweckt haben person:acc wake wakes woke woken
vor|stellen stellt stellte vorgestellt haben person:acc introduce . . .
helfen hilft half geholfen haben person:dat help . . .
danken dankt dankte gedankt haben person:dat thank . . .
folgen folgt folgte gefolgt sein person:dat follow . . .
vertrauen vertraut vertraute vertraut haben person:dat trust . . .
antworten antwortet antwortete geantwortet haben person:dat answer . . .
zu|hören hört hörte zugehört haben person:dat listen:to listens:to listened:to listened:to
zu|stimmen stimmt stimmte zugestimmt haben person:dat agree:with agrees:with agreed:with agreed:with
füttern füttert fütterte gefüttert haben animal:acc feed feeds fed fed
jagen jagt jagte gejagt haben animal:acc chase . . .
waschen wäscht wusch gewaschen haben animal:acc wash washes washed washed
streicheln streichelt streichelte gestreichelt haben animal:acc stroke . . .
ein|fangen fängt fing eingefangen haben animal:acc catch catches caught caught
los|lassen lässt ließ losgelassen haben animal:acc release . . .
kaufen kauft kaufte gekauft haben thing:acc buy buys bought bought
tragen trägt trug getragen haben thing:acc carry carries carried carried
bauen baut baute gebaut haben thing:acc build builds built built
verlieren verliert verlor verloren haben thing:acc lose loses lost lost
zeichnen zeichnet zeichnete gezeichnet haben thing:acc draw draws drew drawn
brauchen braucht brauchte gebraucht haben thing:acc need . . .
reparieren repariert reparierte repariert haben thing:acc repair . . .
weg|werfen wirft warf weggeworfen haben thing:acc throw:away throws:away threw:away thrown:away
auf|heben hebt hob aufgehoben haben thing:acc lift . . .
zurück|bringen bringt brachte zurückgebracht haben thing:acc bring:back brings:back brought:back brought:back
ein|packen packt packte eingepackt haben thing:acc pack . . .
aus|wählen wählt wählte ausgewählt haben thing:acc choose chooses chose chosen
verkaufen verkauft verkaufte verkauft haben thing:acc sell sells sold sold
lesen liest las gelesen haben text:acc read reads read read
schreiben schreibt schrieb geschrieben haben text:acc write writes wrote written
übersetzen übersetzt übersetzte übersetzt haben text:acc translate . . .
vor|lesen liest las vorgelesen haben text:acc read:aloud reads:aloud read:aloud read:aloud
ab|schreiben schreibt schrieb abgeschrieben haben text:acc copy copies copied copied
unterschreiben unterschreibt unterschrieb unterschrieben haben text:acc sign . . .
essen isst aß gegessen haben food:acc eat eats ate eaten
kochen kocht kochte gekocht haben food:acc cook . . .
probieren probiert probierte probiert haben food:acc try tries tried tried
schneiden schneidet schnitt geschnitten haben food:acc cut cuts cut cut
auf|essen isst aß aufgegessen haben food:acc eat:up eats:up ate:up eaten:up
zu|bereiten bereitet bereitete zubereitet haben food:acc prepare . . .
geben gibt gab gegeben haben give give gives gave given
zeigen zeigt zeigte gezeigt haben give show shows showed shown
schenken schenkt schenkte geschenkt haben give offer . . .
schicken schickt schickte geschickt haben give send sends sent sent
bringen bringt brachte gebracht haben give bring brings brought brought
leihen leiht lieh geliehen haben give lend lends lent lent
"""
_ADJECTIVES = """
alt old, jung young, neu new, klein small, groß big, schön beautiful, schnell fast, langsam slow, rot red, blau blue,
grün green, schwarz black, weiß white, grau grey, gelb yellow, müd tired, stark strong, schwach weak, reich rich,
arm poor, klug clever, freundlich friendly, ruhig calm, laut loud, still quiet, fremd strange, berühmt famous,
seltsam odd, traurig sad, glücklich happy, wütend angry, mutig brave, krank sick, gesund healthy, schwer heavy,
leicht light, warm warm, kalt cold, sauber clean, schmutzig dirty, lang long, kurz short, dick fat, dünn thin,
wichtig important, billig cheap, gut good, schlecht bad, hungrig hungry, faul lazy
"""
_MANNER = "gern gladly, vorsichtig carefully, leise quietly, schnell quickly, allein alone, geduldig patiently"
_TIMES = {
    "any": "oft often, immer always, manchmal sometimes, selten rarely, abends in:the:evening, nachts at:night",
    "present": "heute today, jetzt now, gerade just:now, diese:Woche this:week",
    "future": "morgen tomorrow, bald soon, nächstes:Jahr next:year, später later",
    "past": "gestern yesterday, damals back:then, letzte:Woche last:week, früher in:the:past",
}


def _spaced(text: str) -> str:
    return text.replace(":", " ")


def _noun(line: str, kind: str) -> Noun:
    german, gender, plural, english, *more = line.split()
    nominative, _, oblique = german.partition("/")
    assert gender in ("m", "f", "n")
    return Noun(nominative, gender, plural, english, more[0] if more else f"{english}s", kind, oblique or nominative)  # type: ignore[arg-type]


def _verb(line: str) -> Verb:
    german, present, past, participle, auxiliary, frame, english, *forms = line.split()
    prefix, _, infinitive = german.rpartition("|")
    stem = english.removesuffix("e")
    regular = (f"{english}s", f"{stem}ed", f"{stem}ed")
    third, english_past, english_participle = (
        _spaced(rule if form == "." else form) for form, rule in zip(forms, regular, strict=True)
    )
    assert auxiliary in ("haben", "sein")
    return Verb(
        prefix=prefix,
        infinitive=infinitive,
        present=present,
        past=past,
        participle=participle,
        auxiliary=auxiliary,  # type: ignore[arg-type]
        frame=frame,
        english=_spaced(english),
        english_present=third,
        english_past=english_past,
        english_participle=english_participle,
    )


def _words(text: str) -> list[Word]:
    pairs = (part.split() for part in text.replace("\n", " ").split(","))
    return [Word(_spaced(german), _spaced(english)) for german, english in pairs]


def _place(line: str) -> Place:
    preposition, english, noun = line.split(maxsplit=2)
    return Place(preposition, english, _noun(noun, "place"))


_TABLES = {"person": _PERSONS, "animal": _ANIMALS, "thing": _THINGS, "text": _TEXTS, "food": _FOODS}
NOUNS = {kind: [_noun(line, kind) for line in table.strip().splitlines()] for kind, table in _TABLES.items()}
PLACES = [_place(line) for line in _PLACES.strip().splitlines()]
VERBS = [_verb(line) for line in _VERBS.strip().splitlines()]
ADJECTIVES = _words(_ADJECTIVES)
MANNERS = _words(_MANNER)
TIMES = {when: _words(table) for when, table in _TIMES.items()}
