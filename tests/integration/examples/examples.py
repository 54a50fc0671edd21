"""The first examples of well-known distributions: one function each, which returns what they come to."""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def _run(*command, cwd=None, **env):
    """Return what a program prints."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, cwd=cwd, env={**os.environ, **env}, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def _script(package, name):
    """Return the path of a launcher that the distribution of ``package`` brings."""
    return str(Path(sys.modules[package].__file__).parents[1] / "bin" / name)


# --- nature: what observes and measures it ---------------------------------------------------------------


def rdkit():
    """Read, describe, match and draw molecules; feature and filter definitions are read by C++ code."""
    from rdkit import Chem, RDConfig, rdBase
    from rdkit.Chem import AllChem, ChemicalFeatures, Crippen, Descriptors, Draw, FilterCatalog, SaltRemover
    from rdkit.Chem.Draw import rdMolDraw2D

    rdBase.DisableLog("rdApp.*")
    aspirin = Chem.AddHs(Chem.MolFromSmiles("CC(=O)Oc1ccccc1C(=O)O"))
    placed = AllChem.EmbedMolecule(aspirin, randomSeed=7)
    flat = Chem.RemoveHs(aspirin)
    factory = ChemicalFeatures.BuildFeatureFactory(os.path.join(RDConfig.RDDataDir, "BaseFeatures.fdef"))
    parameters = FilterCatalog.FilterCatalogParams()
    parameters.AddCatalog(FilterCatalog.FilterCatalogParams.FilterCatalogs.BRENK)
    sys.path.append(os.path.join(RDConfig.RDContribDir, "SA_Score"))
    import sascorer

    drawer = rdMolDraw2D.MolDraw2DSVG(200, 200)
    drawer.DrawMolecule(flat)
    drawer.FinishDrawing()
    salt = SaltRemover.SaltRemover().StripMol(Chem.MolFromSmiles("CN(C)C.Cl"))
    return {
        "smiles": Chem.MolToSmiles(flat),
        "placed": placed,
        "weight": round(Descriptors.MolWt(flat), 3),
        "logp": round(Crippen.MolLogP(flat), 3),
        "features": sorted({feature.GetFamily() for feature in factory.GetFeaturesForMol(flat)}),
        "alerts": [
            entry.GetDescription() for entry in FilterCatalog.FilterCatalog(parameters).GetMatches(flat)
        ],
        "score": round(sascorer.calculateScore(flat), 2),
        "svg": drawer.GetDrawingText().count("<path"),
        "picture": Draw.MolToImage(flat, size=(64, 64)).size,
        "stripped": Chem.MolToSmiles(salt),
        "inchi": Chem.MolToInchiKey(flat),
    }


def astropy():
    """Units, tables, FITS, times with the bundled Earth rotation data, positions and bundled files."""
    import astropy.units as u
    import numpy as np
    from astropy.coordinates import EarthLocation, SkyCoord, get_body
    from astropy.io import fits
    from astropy.table import Table
    from astropy.time import Time
    from astropy.utils.data import get_pkg_data_filename, get_pkg_data_filenames
    from astropy.utils.iers import IERS_B, conf
    from astropy.wcs import WCS

    conf.auto_download = False
    when = Time("2020-03-20T12:00:00")
    here = EarthLocation(lat=51.5 * u.deg, lon=0 * u.deg)
    header = fits.getheader(get_pkg_data_filename("tests/data/test0.fits", package="astropy.io.fits"))
    spectrum = get_pkg_data_filename("tests/data/spectra/orion-freq-1.hdr", package="astropy.wcs")
    wcs = WCS(Path(spectrum).read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "table.fits")
        Table({"a": np.arange(3), "b": ["x", "y", "z"]}).write(path)
        again = Table.read(path)
        info = _run(sys.executable, _script("astropy", "fitsinfo"), path).count("BinTableHDU")
    return {
        "speed": f"{(3 * u.km / u.s).to(u.km / u.hour):.1f}",
        "ut1": round(float(when.delta_ut1_utc), 5),
        "iers": len(IERS_B.open()) > 20000,
        "sun": get_body("sun", when, here).to_string("hmsdms", precision=0),
        "galactic": SkyCoord("00h42m44.3s", "+41d16m09s").galactic.to_string(precision=3),
        "header": [header["NAXIS"], len(header)],
        "wcs": wcs.naxis,
        "table": [again.colnames, [str(value) for value in again["b"]]],
        "info": info,
        "maps": len(list(get_pkg_data_filenames("tests/data/maps", package="astropy.wcs", pattern="*.hdr"))),
    }


def netcdf4():
    """Write and read files, compressed by the filter plugins that the HDF5 library loads by itself."""
    import netCDF4
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for how in ("zlib", "bzip2", "zstd", "blosc_lz4"):
            path = os.path.join(folder, f"{how}.nc")
            with netCDF4.Dataset(path, "w") as made:
                made.createDimension("time", None)
                made.createDimension("x", 100)
                values = made.createVariable("values", "f8", ("time", "x"), compression=how)
                values[:] = np.arange(300).reshape(3, 100)
                times = made.createVariable("time", "f8", ("time",))
                times.units, times.calendar = "days since 2001-01-01", "noleap"
                times[:] = [0, 58, 59]
            with netCDF4.Dataset(path) as read:
                dates = netCDF4.num2date(read["time"][:], read["time"].units, read["time"].calendar)
                filters = sorted(name for name, on in read["values"].filters().items() if on)
                found[how] = [float(read["values"][:].sum()), filters, str(dates[-1])]
        old = os.path.join(folder, "old.nc")
        classic = os.path.join(folder, "classic.nc")
        with netCDF4.Dataset(classic, "w", format="NETCDF4_CLASSIC") as made:
            made.createDimension("x", 3)
            made.createVariable("values", "i4", ("x",))[:] = [1, 2, 3]
        _run(sys.executable, _script("netCDF4", "nc4tonc3"), "--quiet=1", classic, old)
        with netCDF4.Dataset(old) as read:
            found["converted"] = [read.data_model, read["values"][:].tolist()]
        return found


def pysam():
    """Write alignments, sort and index them by the built-in samtools, fetch regions, index a FASTA file."""
    import pysam

    with tempfile.TemporaryDirectory() as folder:
        plain, bam = os.path.join(folder, "plain.bam"), os.path.join(folder, "sorted.bam")
        header = {"HD": {"VN": "1.6"}, "SQ": [{"LN": 1000, "SN": "chr1"}, {"LN": 500, "SN": "chr2"}]}
        with pysam.AlignmentFile(plain, "wb", header=header) as made:
            for number, start in enumerate((300, 100, 200)):
                read = pysam.AlignedSegment(made.header)
                read.query_name, read.query_sequence = f"read{number}", "ACGTACGTAC"
                read.reference_id, read.reference_start, read.mapping_quality = 0, start, 20
                read.cigarstring, read.flag = "10M", 0
                made.write(read)
        pysam.sort("-o", bam, plain)
        pysam.index(bam)
        with pysam.AlignmentFile(bam) as read:
            names = [segment.query_name for segment in read.fetch("chr1", 90, 250)]
            depth = sum(column.nsegments for column in read.pileup("chr1"))
        fasta = Path(folder, "all.fa")
        fasta.write_text(">one\nACGTACGT\nAC\n>two\nGGGG\n")
        with pysam.FastaFile(str(fasta)) as sequences:
            fetched = [sequences.fetch("one", 6, 10), sequences.references]
        table = Path(folder, "all.bed")
        table.write_text("chr1\t10\t20\tfirst\nchr1\t50\t60\tsecond\n")
        with pysam.TabixFile(pysam.tabix_index(str(table), preset="bed")) as rows:
            regions = list(rows.fetch("chr1", 40, 70))
        return {
            "names": names,
            "depth": depth,
            "stat": pysam.flagstat(bam).splitlines()[0],
            "fetched": fetched,
            "regions": regions,
        }


def timezonefinder():
    """Look places up in the bundled polygons, in memory and from files, and by the command."""
    from timezonefinder import TimezoneFinder, TimezoneFinderL

    places = {
        "Berlin": (13.358, 52.5061),
        "Denver": (-104.99, 39.74),
        "sea": (-30.0, 0.0),
        "Apia": (-171.76, -13.83),
    }
    finders = (TimezoneFinder(), TimezoneFinder(in_memory=True), TimezoneFinderL())
    found = {name: [f.timezone_at(lng=x, lat=y) for f in finders] for name, (x, y) in places.items()}
    script = _script("timezonefinder", "timezonefinder")
    return {
        **found,
        "zones": len(finders[0].timezone_names),
        "outline": len(finders[0].get_geometry(tz_name="Europe/Vaduz")[0][0][0]),
        "command": _run(sys.executable, script, "query", "13.358", "52.5061").split(),
        "native": TimezoneFinder.using_clang_pip(),
    }


# --- signs: what is heard, drawn, written and read ---------------------------------------------------------


def librosa():
    """Beats, pitch and spectra of made sounds, by functions that numba compiles and caches."""
    import librosa
    import numpy as np
    import soundfile

    rate = 22050
    clicks = librosa.clicks(times=np.arange(0.5, 8, 0.5), sr=rate, length=8 * rate)
    tone = librosa.tone(440, sr=rate, duration=1.0)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "tone.ogg")
        soundfile.write(path, tone, rate)
        loaded, at = librosa.load(path, sr=16000)
    tempo, beats = librosa.beat.beat_track(y=clicks, sr=rate)
    pitch = librosa.yin(tone, fmin=200, fmax=900, sr=rate)
    return {
        "tempo": round(float(np.ravel(tempo)[0])),
        "beats": len(beats),
        "pitch": round(float(np.median(pitch))),
        "mfcc": librosa.feature.mfcc(y=tone, sr=rate, n_mfcc=5).shape,
        "chroma": librosa.note_to_hz("A4") == 440
        and int(librosa.feature.chroma_cqt(y=tone, sr=rate).mean(axis=1).argmax()),
        "loaded": [at, round(len(loaded) / at, 2)],
        "key": librosa.key_to_notes("D:maj")[:3],
    }


def spacy():
    """Tokens, rules, matches, a small trained categorizer, pipelines on disk; parts are entry points."""
    import spacy
    from spacy.matcher import Matcher
    from spacy.tokens import DocBin
    from spacy.training import Example

    spacy.util.fix_random_seed(3)
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "ORG", "pattern": "Apple"}, {"label": "GPE", "pattern": "U.K."}])
    text = "Apple isn't looking at buying a U.K. startup for $1 billion. It's 5km away!"
    doc = nlp(text)
    matcher = Matcher(nlp.vocab)
    matcher.add("sum", [[{"IS_CURRENCY": True}, {"LIKE_NUM": True}, {"LOWER": "billion"}]])
    words = spacy.blank("en")
    kinds = words.add_pipe("textcat")
    for label in ("GOOD", "BAD"):
        kinds.add_label(label)
    told = [("this is good, really good", 1.0), ("this is bad, really bad", 0.0)] * 4
    examples = [Example.from_dict(words.make_doc(t), {"cats": {"GOOD": g, "BAD": 1 - g}}) for t, g in told]
    words.initialize(lambda: examples)
    for _ in range(10):
        words.update(examples)
    with tempfile.TemporaryDirectory() as folder:
        nlp.to_disk(folder)
        again = spacy.load(folder)(text)
    stored = DocBin(docs=[doc]).to_bytes()
    return {
        "tokens": [token.text for token in doc],
        "entities": [(entity.text, entity.label_) for entity in again.ents],
        "sentences": len(list(doc.sents)),
        "matched": [doc[start:end].text for _, start, end in matcher(doc)],
        "good": words("good").cats["GOOD"] > words("bad").cats["GOOD"],
        "stored": [d.text == text for d in DocBin().from_bytes(stored).get_docs(nlp.vocab)],
        "marked": spacy.displacy.render(doc, style="ent", jupyter=False).count("<mark"),
        "languages": [spacy.blank(code)("один два 1").__len__() for code in ("ru", "fr", "xx")],
        "architectures": len(spacy.registry.architectures.get_all()),
        "parts": _run(sys.executable, "-m", "spacy", "info").count("spaCy version"),
    }


def statsmodels():
    """Fit models to bundled data sets."""
    import statsmodels.api as sm
    import statsmodels.formula.api as smf

    spector = sm.datasets.spector.load_pandas()
    logit = sm.Logit(spector.endog, sm.add_constant(spector.exog)).fit(disp=0)
    longley = sm.datasets.longley.load_pandas().data
    line = smf.ols("TOTEMP ~ GNP + UNEMP", data=longley).fit()
    spots = sm.datasets.sunspots.load_pandas().data["SUNACTIVITY"]
    model = sm.tsa.AutoReg(spots, lags=3).fit()
    co2 = sm.datasets.co2.load_pandas().data
    smooth = sm.nonparametric.lowess(longley["TOTEMP"], longley["YEAR"], frac=0.5)
    return {
        "logit": [round(value, 3) for value in logit.params],
        "line": {name: round(value, 3) for name, value in line.params.items()},
        "spots": [round(value, 2) for value in model.params],
        "co2": [len(co2), str(co2.index[0])],
        "smooth": [round(float(value), 0) for value in smooth[:2, 1]],
        "datasets": len(dir(sm.datasets)),
    }


def pygame():
    """Draw with the bundled font, load bundled pictures and sounds, and write a picture, without a screen."""
    os.environ.update(SDL_VIDEODRIVER="dummy", SDL_AUDIODRIVER="dummy", PYGAME_HIDE_SUPPORT_PROMPT="1")
    import pygame
    import pygame.freetype

    pygame.init()
    screen = pygame.display.set_mode((320, 200))
    screen.fill((20, 30, 40))
    pygame.draw.circle(screen, "red", (160, 100), 50)
    words = pygame.font.Font(None, 30).render("Hello", True, "white")
    screen.blit(words, (10, 10))
    other, _ = pygame.freetype.Font(None, 20).render("Hello", "yellow")
    data = os.path.join(os.path.dirname(pygame.__file__), "examples", "data")
    pictures = [
        pygame.image.load(os.path.join(data, name)).get_size()
        for name in ("chimp.png", "alien1.jpg", "liquid.bmp")
    ]
    sound = pygame.mixer.Sound(os.path.join(data, "boom.wav"))
    pygame.mixer.music.load(os.path.join(data, "house_lo.ogg"))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "screen.png")
        pygame.image.save(screen, path)
        again = pygame.image.load(path).get_at((160, 100))
    found = {
        "words": words.get_size(),
        "other": other.get_size(),
        "pictures": pictures,
        "sound": round(sound.get_length(), 2),
        "pixel": list(again),
        "mask": pygame.mask.from_threshold(screen, (255, 0, 0), (1, 1, 1)).count(),
        "driver": pygame.display.get_driver(),
    }
    pygame.quit()
    return found


def reportlab():
    """Make a document with a bundled TrueType font, a table, a chart and a bar code."""
    from reportlab.graphics import renderSVG
    from reportlab.graphics.barcode import createBarcodeDrawing
    from reportlab.graphics.charts.barcharts import VerticalBarChart
    from reportlab.graphics.shapes import Drawing
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont
    from reportlab.platypus import Paragraph, SimpleDocTemplate, Table

    pdfmetrics.registerFont(TTFont("Vera", "Vera.ttf"))
    style = getSampleStyleSheet()["Normal"].clone("vera", fontName="Vera")
    drawing = Drawing(200, 100)
    chart = VerticalBarChart()
    chart.data = [(1, 2, 3)]
    drawing.add(chart)
    code = createBarcodeDrawing("EAN13", value="123456789012")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "all.pdf")
        document = SimpleDocTemplate(str(path), pagesize=A4, invariant=1)
        document.build([Paragraph("Hello <b>world</b> äöü", style), Table([[1, 2], [3, 4]]), drawing, code])
        pdf = path.read_bytes()
    return {
        "pdf": [pdf[:5].decode(), hashlib.sha256(pdf).hexdigest(), pdf.count(b"/FontFile2")],
        "width": round(pdfmetrics.stringWidth("Hello", "Times-Roman", 12), 2),
        "face": pdfmetrics.getFont("Vera").face.name.decode(),
        "svg": renderSVG.drawToString(code).count("<rect"),
    }


def lark():
    """Parse with the bundled grammars, cache a parser, and generate one that stands alone."""
    from lark import Lark, Transformer
    from lark.indenter import PythonIndenter

    class Sums(Transformer):
        add = sum

        def number(self, found):
            return float(found[0])

    grammar = (
        'start: add\nadd: number ("+" number)*\nnumber: NUMBER\n'
        "%import common.NUMBER\n%import common.WS\n%ignore WS\n"
    )
    python = Lark.open_from_package(
        "lark", "python.lark", ["grammars"], parser="lalr", postlex=PythonIndenter(), start="file_input"
    )
    itself = Lark.open_from_package("lark", "lark.lark", ["grammars"], parser="lalr")
    with tempfile.TemporaryDirectory() as folder:
        cached = [
            Lark(grammar, parser="lalr", cache=os.path.join(folder, "cache")).parse("1 + 2.5 + 3")
            for _ in range(2)
        ]
        path = Path(folder, "sums.lark")
        path.write_text(grammar)
        alone = _run(sys.executable, "-m", "lark.tools.standalone", str(path))
        Path(folder, "sums.py").write_text(alone)
        spoken = _run(
            sys.executable, "-c", "import sums; print(sums.Lark_StandAlone().parse('4+5').data)", cwd=folder
        )
    return {
        "sum": Sums().transform(cached[0]).children[0],
        "same": cached[0] == cached[1],
        "python": [tree.data for tree in python.parse("def f(x):\n    return x + 1\n").iter_subtrees()],
        "itself": len(list(itself.parse(grammar).iter_subtrees())),
        "alone": [spoken.strip(), len(alone.splitlines())],
        "earley": Lark("start: (A|B)+\nA: /a+/\nB: /[ab]/\n", ambiguity="explicit").parse("aab").data,
    }


def jedi():
    """Complete, infer and find references, with the bundled stubs and by a child interpreter."""
    import jedi

    def names(code, **more):
        return [found.name for found in jedi.Script(code, **more).complete()]

    environment = jedi.create_environment(sys.executable, safe=False)
    code = "import lark\nlark.Lark.open"
    [signature] = jedi.Script("import json\njson.dumps(").get_signatures()
    [source] = jedi.Script("import lark\nlark.Lark").infer(2, 8)
    return {
        "stdlib": names("import json\njson.lo"),
        "child": names("import os.path\nos.path.jo", environment=environment),
        "package": [names(code), names(code, environment=environment)],
        "same": names(code, environment=jedi.InterpreterEnvironment()),
        "native": names("import pygame.surface as s\ns.Surface.get_he")[:1],
        "signature": signature.to_string()[:40],
        "source": [source.full_name, Path(source.module_path).name, source.line > 1],
        "imports": [name for name in names("import reportl") if name == "reportlab"],
        "live": [found.name for found in jedi.Interpreter("text.upp", [{"text": "x"}]).complete()],
        "version": list(environment.version_info)[:2],
    }


def black():
    """Format strings, and files in worker processes, by compiled modules with a bundled grammar."""
    import black

    mode = black.Mode(line_length=60, string_normalization=True)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(3):
            Path(folder, f"m{number}.py").write_text(f"x = {{'a':{number},'b' : [1,\n2]}}\n")
        said = subprocess.run(
            [sys.executable, "-m", "black", "--workers", "2", folder],
            capture_output=True,
            text=True,
            check=False,
        )
        formatted = Path(folder, "m2.py").read_text()
    try:
        black.format_str("x = = 1", mode=mode)
    except black.InvalidInput as error:
        refused = str(error).splitlines()[0]
    return {
        "string": black.format_str("def f ( a,b = 'x' ):\n  return  a if b else( a )\n", mode=mode),
        "files": [formatted, said.returncode, said.stderr.splitlines()[-1]],
        "refused": refused,
        "compiled": black.brackets.__file__.endswith(".so"),
        "match": black.format_str("match x:\n case [1,2]: pass\n", mode=mode),
    }


# --- work: deals, plans, messages ---------------------------------------------------------------------------


def quantlib():
    """Price an option and a bond, and count business days."""
    import QuantLib as ql  # noqa: N813 - as its documentation does

    today = ql.Date(15, 5, 2026)
    ql.Settings.instance().evaluationDate = today
    payoff = ql.PlainVanillaPayoff(ql.Option.Call, 105.0)
    option = ql.VanillaOption(payoff, ql.EuropeanExercise(today + ql.Period(1, ql.Years)))
    days = ql.Actual365Fixed()
    spot = ql.QuoteHandle(ql.SimpleQuote(100.0))
    rate = ql.YieldTermStructureHandle(ql.FlatForward(today, 0.03, days))
    volatility = ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.TARGET(), 0.2, days))
    option.setPricingEngine(ql.AnalyticEuropeanEngine(ql.BlackScholesProcess(spot, rate, volatility)))
    schedule = ql.MakeSchedule(today, ql.Date(15, 5, 2031), ql.Period("6M"), calendar=ql.TARGET())
    bond = ql.FixedRateBond(2, 100.0, schedule, [0.04], ql.ActualActual(ql.ActualActual.ISDA))
    bond.setPricingEngine(ql.DiscountingBondEngine(rate))
    try:
        ql.Date(31, 2, 2026)
    except RuntimeError as error:
        refused = str(error)
    return {
        "option": [round(option.NPV(), 4), round(option.delta(), 4)],
        "bond": round(bond.cleanPrice(), 4),
        "business": ql.UnitedStates(ql.UnitedStates.NYSE).businessDaysBetween(today, today + 30),
        "refused": refused,
    }


def pulp():
    """Solve a small plan by the bundled solver, a program of its own."""
    import pulp

    problem = pulp.LpProblem("whiskas", pulp.LpMinimize)
    chicken = pulp.LpVariable("chicken", 0, cat="Integer")
    beef = pulp.LpVariable("beef", 0)
    problem += 0.013 * chicken + 0.008 * beef
    problem += chicken + beef == 100
    problem += 0.100 * chicken + 0.200 * beef >= 8.0
    problem += 0.080 * chicken + 0.100 * beef >= 6.5
    problem += 0.001 * chicken + 0.005 * beef <= 2.0
    problem += chicken >= 20.5
    status = problem.solve(pulp.PULP_CBC_CMD(msg=False))
    return {
        "status": pulp.LpStatus[status],
        "cost": round(pulp.value(problem.objective), 4),
        "plan": {variable.name: variable.varValue for variable in problem.variables()},
        "solvers": pulp.listSolvers(onlyAvailable=True),
    }


def z3_solver():
    """Prove and solve, by the bundled library and by the bundled program."""
    import z3

    x, y = z3.Ints("x y")
    solver = z3.Solver()
    solver.add(x > 2, y < 10, x + 2 * y == 7, y > 1)
    answer = solver.check()
    model = solver.model()
    p, q = z3.Bools("p q")
    prove = z3.Solver()
    prove.add(z3.Not(z3.And(p, q) == z3.Not(z3.Or(z3.Not(p), z3.Not(q)))))
    optimize = z3.Optimize()
    a = z3.Real("a")
    optimize.add(a * 2 <= 7)
    optimize.maximize(a)
    optimize.check()
    program = _run(_script("z3", "z3"), "--version")
    try:
        z3.parse_smt2_string("(assert (")
    except z3.Z3Exception as error:
        refused = str(error)[:60]
    return {
        "answer": [str(answer), model[x].as_long(), model[y].as_long()],
        "proved": str(prove.check()),
        "most": str(optimize.model()[a]),
        "program": program.startswith("Z3 version"),
        "refused": refused,
    }


def confluent_kafka():
    """Send and receive through the broker for tests that the bundled library has in it."""
    from confluent_kafka import Consumer, KafkaException, Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "ignored", "log_level": 0})
    [broker] = producer.list_topics(timeout=20).brokers.values()
    servers = {"bootstrap.servers": f"{broker.host}:{broker.port}"}
    [made] = AdminClient(servers).create_topics([NewTopic("talk", 1, 1)]).values()
    try:
        made.result(20)
    except KafkaException:
        # The mock makes topics when they are used; some versions refuse the request.
        pass
    told = []
    for number in range(3):
        producer.produce(
            "talk",
            f"message {number}".encode(),
            key=b"k",
            callback=lambda _, message: told.append(message.offset()),
        )
    left = producer.flush(30)
    consumer = Consumer({**servers, "group.id": "g", "auto.offset.reset": "earliest"})
    consumer.subscribe(["talk"])
    heard, end = [], time.monotonic() + 60
    while len(heard) < 3 and time.monotonic() < end:
        message = consumer.poll(1)
        if message is not None and not message.error():
            heard.append(message.value().decode())
    consumer.close()
    return {"left": left, "told": sorted(told), "heard": heard}


def celery():
    """Run tasks in a worker of two processes that a command starts; the messages are files."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("messages", "control", "results"):
            Path(folder, name).mkdir()
        Path(folder, "jobs.py").write_text(
            "from celery import Celery\n"
            f"here = {folder!r}\n"
            "app = Celery('jobs', broker='filesystem://', backend=f'file://{here}/results')\n"
            "app.conf.broker_transport_options = {\n"
            "    'data_folder_in': f'{here}/messages', 'data_folder_out': f'{here}/messages',\n"
            "    'control_folder': f'{here}/control'}\n"
            "@app.task\n"
            "def add(x, y):\n"
            "    return x + y\n"
            "@app.task\n"
            "def fail():\n"
            "    raise ValueError('no')\n"
        )
        with open(os.path.join(folder, "log"), "wb") as log:
            options = (
                "--pool=prefork",
                "--concurrency=2",
                "--without-gossip",
                "--without-mingle",
                "-l",
                "info",
            )
            worker = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "jobs", "worker", *options],
                cwd=folder,
                stdout=log,
                stderr=log,
            )
            sys.path.insert(0, folder)
            try:
                import jobs
                from celery import chain

                sums = [jobs.add.delay(number, 1) for number in range(3)]
                chained = chain(jobs.add.s(1, 2), jobs.add.s(4))()
                failed = jobs.fail.delay()
                found = [result.get(timeout=100) for result in sums]
                more = chained.get(timeout=100)
                error = failed.get(timeout=100, propagate=False)
            finally:
                worker.terminate()
                worker.wait(60)
        ready = "ready." in Path(folder, "log").read_text()
    return {"sums": found, "chained": more, "failed": [type(error).__name__, str(error)], "ready": ready}


def twisted():
    """Talk over a socket, find plugins, run the test runner and list what the daemon runner offers."""
    from twisted.application.service import IServiceMaker
    from twisted.internet import defer, endpoints, protocol, reactor
    from twisted.plugin import getPlugins

    heard = []

    class Echo(protocol.Protocol):
        def dataReceived(self, data):
            self.transport.write(data.upper())

    class Say(protocol.Protocol):
        def connectionMade(self):
            self.transport.write(b"hello")

        def dataReceived(self, data):
            heard.append(data.decode())
            reactor.stop()

    @defer.inlineCallbacks
    def talk():
        port = yield endpoints.serverFromString(reactor, "tcp:0:interface=localhost").listen(
            protocol.Factory.forProtocol(Echo)
        )
        client = endpoints.clientFromString(reactor, f"tcp:localhost:{port.getHost().port}")
        yield client.connect(protocol.Factory.forProtocol(Say))

    reactor.callWhenRunning(talk)
    reactor.callLater(30, lambda: reactor.running and reactor.stop())
    reactor.run()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_sum.py").write_text(
            "from twisted.trial.unittest import TestCase\n"
            "class Sum(TestCase):\n    def test_it(self):\n        self.assertEqual(1 + 1, 2)\n"
        )
        trial = _run(sys.executable, "-m", "twisted.trial", "test_sum", cwd=folder).splitlines()[-1]
        parallel = _run(
            sys.executable, "-m", "twisted.trial", "-j", "2", "test_sum", cwd=folder
        ).splitlines()[-1]
    return {
        "heard": heard,
        "reactor": type(reactor).__name__,
        "plugins": sorted(plugin.tapname for plugin in getPlugins(IServiceMaker)),
        "trial": [trial, parallel],
        "twistd": "ftp" in _run(sys.executable, _script("twisted", "twistd"), "--help"),
    }


def _square(number):
    """Work for a spawned process, which finds it by its module's name."""
    return number * number, os.getpid()


def distributed():
    """Compute in two worker processes, which are spawned interpreters, and with bundled settings."""
    import dask
    import dask.bag
    from distributed import Client, LocalCluster

    settings = {"distributed.comm.timeouts.connect": "60s", "distributed.admin.low-level-log-length": 10}
    with (
        tempfile.TemporaryDirectory() as folder,
        dask.config.set({**settings, "temporary-directory": folder}),
    ):
        cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
        with cluster, Client(cluster) as client:
            client.wait_for_workers(2, timeout=120)
            squares = client.gather(client.map(_square, range(8)))
            total = client.submit(sum, range(100)).result(timeout=60)
            bag = dask.bag.from_sequence(["a b", "b c"], npartitions=2).map(str.split).flatten().frequencies()
            words = sorted(bag.compute())
            seen = client.run(lambda: sys.modules["distributed"].__name__)
    return {
        "squares": [square for square, _ in squares],
        "processes": os.getpid() not in {process for _, process in squares},
        "total": total,
        "words": words,
        "workers": list(seen.values()),
        "settings": dask.config.get("distributed.scheduler.allowed-failures"),
    }
