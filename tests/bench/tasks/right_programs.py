"""Right programs that use ordinary modules: each must pass in the sandbox."""

# ruff: noqa: E501 (a line is a whole program)
from __future__ import annotations

# One program a line; "; " separates statements and "\n" lines, as in Python source.
ONE_LINE = r"""
import numpy as np; assert np.arange(4).reshape(2, 2).sum() == 6
import numpy as np; assert np.allclose(np.linalg.inv(np.eye(3) * 2), np.eye(3) / 2)
import numpy as np; assert (np.array([1, 2]) == np.array([1, 2])).all()
import numpy as np; np.save('a.npy', np.ones(3)); assert np.load('a.npy').tolist() == [1, 1, 1]
import numpy as np; assert np.random.default_rng(0).integers(10) in range(10); import numpy.fft
import scipy.special; assert abs(scipy.special.gamma(5) - 24) < 1e-9
import math, cmath; assert math.isclose(abs(cmath.exp(1j * math.pi) + 1), 0, abs_tol=1e-9)
import statistics; assert statistics.median([3, 1, 2]) == 2
import fractions, decimal; assert fractions.Fraction(1, 2) == decimal.Decimal('0.5')
import random; random.seed(0); assert sorted(random.sample(range(9), 9)) == list(range(9))
import itertools; assert len(list(itertools.permutations('abc'))) == 6
import functools; assert functools.reduce(lambda a, b: a * b, [1, 2, 3, 4]) == 24
import operator; assert operator.itemgetter(1)([5, 6]) == 6
import collections; assert collections.Counter('aab').most_common(1) == [('a', 2)]
from collections import namedtuple, OrderedDict, deque; P = namedtuple('P', 'x y'); assert P(1, 2) == (1, 2)
import heapq, bisect; assert heapq.nsmallest(2, [3, 1, 2]) == [1, 2] and bisect.bisect([1, 3], 2) == 1
import array; assert array.array('i', [1, 2]).tolist() == [1, 2]
import string, textwrap; assert textwrap.dedent('  a') == 'a' and string.ascii_lowercase[0] == 'a'
import re; assert re.findall(r'\d+', 'a1b22') == ['1', '22']
import difflib; assert difflib.get_close_matches('appel', ['apple', 'pear']) == ['apple']
import unicodedata; assert unicodedata.normalize('NFC', 'e\u0301') == '\xe9'
import json; assert json.loads(json.dumps({'a': [1, None]})) == {'a': [1, None]}
import csv, io; assert list(csv.reader(io.StringIO('a,b'))) == [['a', 'b']]
import configparser; c = configparser.ConfigParser(); c.read_string('[a]\nb = 1'.replace('\\n', '\n'))
import pickle, datetime; d = datetime.date(2020, 2, 29); assert pickle.loads(pickle.dumps(d)) == d
import copy; a = [[1]]; b = copy.deepcopy(a); b[0].append(2); assert a == [[1]]
import hashlib, hmac; assert hashlib.sha256(b'').hexdigest().startswith('e3b0c4'); hmac.new(b'k', b'm', 'sha1').digest()
import base64, binascii, zlib; assert zlib.decompress(zlib.compress(base64.b64encode(b'a'))) == b'YQ=='
import struct; assert struct.unpack('<H', struct.pack('<H', 258)) == (258,)
import uuid; assert uuid.uuid4() != uuid.uuid1()
import datetime, calendar, time; assert calendar.isleap(2024); time.sleep(0.001); assert datetime.timedelta(1).days == 1
import zoneinfo, locale; locale.setlocale(locale.LC_ALL, 'C'); zoneinfo.available_timezones()
import tempfile; f = tempfile.NamedTemporaryFile('w+'); f.write('a'); f.seek(0); assert f.read() == 'a'; f.close()
import tempfile, os; d = tempfile.TemporaryDirectory(); open(os.path.join(d.name, 'a'), 'w').close(); d.cleanup()
import tempfile; f = tempfile.TemporaryFile(); f.write(b'a'); f.close()
import pathlib; p = pathlib.Path('a') / 'b'; p.parent.mkdir(); p.write_text('x'); assert p.read_text() == 'x'; p.unlink()
import shutil, os; os.makedirs('a/b'); open('a/b/c', 'w').close(); shutil.copytree('a', 'd'); shutil.rmtree('a'); shutil.move('d', 'e')
import os; os.mkdir('a'); os.rename('a', 'b'); assert os.listdir('b') == []; os.rmdir('b'); assert os.getcwd()
import glob, fnmatch; open('a.txt', 'w').close(); assert glob.glob('*.txt') == ['a.txt']
import shelve; s = shelve.open('shelf'); s['a'] = 1; s.close(); s = shelve.open('shelf'); assert s['a'] == 1; s.close()
import sqlite3; c = sqlite3.connect(':memory:'); c.execute('create table t (a)'); assert c.execute('select count(*) from t').fetchone() == (0,)
import sqlite3; c = sqlite3.connect('own.db'); c.execute('create table t (a)'); c.execute('insert into t values (1)'); c.commit(); c.close()
import gzip, bz2, lzma; assert gzip.decompress(gzip.compress(b'a')) == bz2.decompress(bz2.compress(b'a')) == b'a'; lzma.compress(b'a')
import zipfile, tarfile; z = zipfile.ZipFile('a.zip', 'w'); z.writestr('a', 'b'); z.close(); assert zipfile.ZipFile('a.zip').namelist() == ['a']
import threading; r = []; t = threading.Thread(target=r.append, args=(1,)); t.start(); t.join(); assert r == [1]
import concurrent.futures as c; assert list(c.ThreadPoolExecutor(4).map(abs, [-1, 2])) == [1, 2]
import queue; q = queue.PriorityQueue(); q.put(2); q.put(1); assert q.get() == 1
import asyncio; assert asyncio.run(asyncio.sleep(0, 3)) == 3
import contextlib, io; b = io.StringIO(); c = contextlib.redirect_stdout(b); c.__enter__(); print('a'); c.__exit__(None, None, None); assert b.getvalue() == 'a\n'
import os; print('gone', file=open(os.devnull, 'w'))
import logging, warnings; logging.basicConfig(); logging.warning('a'); warnings.warn('b')
import ast; assert ast.literal_eval('[1]') == [1]
import ctypes; assert ctypes.sizeof(ctypes.c_int32) == 4
import platform, sysconfig, getpass; assert platform.system() and platform.platform() and sysconfig.get_paths()
import inspect; f = lambda a, b=1: a; assert list(inspect.signature(f).parameters) == ['a', 'b'] and inspect.currentframe()
import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN); signal.alarm(0)
import secrets, gc, weakref; gc.collect(); assert len(secrets.token_bytes(4)) == 4
import argparse; p = argparse.ArgumentParser(); p.add_argument('--a', type=int, default=2); assert p.parse_args().a == 2
import xml.etree.ElementTree as e, html; assert e.fromstring('<a><b/></a>')[0].tag == 'b' and html.escape('<') == '&lt;'
import urllib.parse, ipaddress; assert urllib.parse.quote('a b') == 'a%20b' and ipaddress.ip_address('::1').is_loopback
import multiprocessing, subprocess, socket, http.client, email.message; assert socket.gethostname()
import cProfile; p = cProfile.Profile(); p.enable(); sum([1]); p.disable()
import sympy; x = sympy.Symbol('x'); assert sympy.expand((x + 1) ** 2) == x ** 2 + 2 * x + 1
import unittest.mock; assert unittest.mock.Mock(return_value=3)() == 3
""".strip().splitlines()

LONGER = [
    "import dataclasses\n@dataclasses.dataclass(order=True)\nclass P:\n    x: 'int'\nassert P(1) == P(1) and P(1) < P(2)",
    "import enum\nclass C(enum.Enum):\n    A = 1\nassert C(1) is C.A and C.A == C.A",
    "import pickle\nclass P:\n    x = 1\nassert pickle.loads(pickle.dumps(P())).x == 1",
    "import typing\nclass P:\n    x: 'list[int]'\nassert typing.get_type_hints(P) == {'x': list[int]}",
    "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(1, 1)\n"
    "assert unittest.main(exit=False).result.wasSuccessful()",
    "import doctest\ndef f():\n    '''\n    >>> f()\n    3\n    '''\n    return 3\nassert doctest.testmod() == (0, 1)",
    "class V:\n    def __init__(self, x): self.x = x\n    def __eq__(self, other): return self.x == getattr(other, 'x', other)\n"
    "assert V(1) == 1 and V(1) != 2 and [V(3)] == [3]",
    "import sys\nsys.setrecursionlimit(5000)\ndef f(n): return n and 1 + f(n - 1)\nassert f(3000) == 3000",
    "if __name__ == '__main__':\n    import os\n    assert os.path.basename(__file__) == 'program.py'",
    "def walk():\n    yield from range(3)\nassert 0 < 1 < 2 and list(walk()) == [0, 1, 2]",
]
FURTHER = [
    "from dataclasses import dataclass, field, asdict, replace\n@dataclass(order=True)\nclass P:\n    x: int\n    y: list = field(default_factory=list)\np=P(1)\nassert asdict(replace(p,x=2))=={'x':2,'y':[]} and P(1)<P(2) and p==P(1)",
    "import asyncio\nasync def m():\n    async with asyncio.timeout(100):\n        q=asyncio.Queue()\n        async def p():\n            for i in range(3): await q.put(i)\n        async with asyncio.TaskGroup() as g:\n            g.create_task(p())\n        return [q.get_nowait() for _ in range(3)]\nassert asyncio.run(m())==[0,1,2]",
    "import asyncio\nassert asyncio.run(asyncio.to_thread(sum,[1,2]))==3",
    "import queue, threading\nq=queue.Queue()\nthreading.Thread(target=lambda:[q.put(i) for i in range(3)]).start()\nassert [q.get(timeout=60) for _ in range(3)]==[0,1,2]",
    "import tempfile, os\nwith tempfile.TemporaryDirectory() as d:\n    p=os.path.join(d,'a')\n    open(p,'w').write('x')\n    assert os.path.getsize(p)==1\nwith tempfile.NamedTemporaryFile('w+') as f:\n    f.write('a'); f.seek(0); assert f.read()=='a'\nwith tempfile.SpooledTemporaryFile(max_size=1) as f:\n    f.write(b'abc'); f.seek(0); assert f.read()==b'abc'\nwith tempfile.TemporaryFile() as f: f.write(b'a')",
    "import numpy as np\nA=np.array([[2.,1],[1,3]])\nassert np.allclose(np.linalg.inv(A)@A,np.eye(2))\nw,v=np.linalg.eigh(A)\nassert np.allclose(v@np.diag(w)@v.T,A)\nassert abs(np.linalg.det(A)-5)<1e-9\nnp.linalg.svd(np.random.rand(50,50)); np.fft.fft(np.arange(8))",
    "import pandas as pd\nd=pd.DataFrame({'a':[1,2],'b':['x','y']})\nassert d.groupby('b').a.sum()['y']==2\nassert d.shape==(2,2)\nd.to_csv('t.csv',index=False)\nassert pd.read_csv('t.csv').equals(d)",
    "from datetime import datetime, timedelta, timezone, date\nfrom zoneinfo import ZoneInfo\nd=datetime(2024,3,10,12,tzinfo=ZoneInfo('America/New_York'))\nassert d.utcoffset()==timedelta(hours=-4)\nassert date(2024,2,29).isoformat()=='2024-02-29'\nassert datetime.strptime('2024-01-02','%Y-%m-%d').weekday()==1\ndatetime.now().astimezone()",
    "import csv, io\nr=list(csv.DictReader(io.StringIO('a,b\\n1,2\\n')))\nassert r==[{'a':'1','b':'2'}]\nwith open('o.csv','w',newline='') as f: csv.writer(f).writerow([1,2])\nassert open('o.csv').read()=='1,2\\n'",
    "import statistics as s\nassert s.median([1,3,2])==2 and s.stdev([1,2,3])==1 and s.mode('aab')=='a'\nassert s.NormalDist(0,1).cdf(0)==.5",
    "from typing import *\nT=TypeVar('T')\nclass B(Generic[T]):\n    def __init__(self,x:T): self.x=x\nassert B[int](3).x==3\nclass N(NamedTuple):\n    a:int\nassert N(1)==(1,)\nclass D(TypedDict):\n    a:int\nassert D(a=1)=={'a':1}\nassert get_type_hints(B.__init__)",
    "import sys, functools\nsys.setrecursionlimit(20000)\n@functools.cache\ndef f(n): return 1 if n<2 else f(n-1)+1\nassert f(5000)==5000",
    "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(256*1024*1024)\nr=[]\ndef f(n): return 0 if n==0 else 1+f(n-1)\nt=threading.Thread(target=lambda:r.append(f(50000)))\nt.start(); t.join()\nassert r==[50000]",
    "import io\nb=io.BytesIO(b'ab\\ncd')\nassert b.readline()==b'ab\\n'\nassert io.TextIOWrapper(io.BytesIO('é'.encode()),'utf-8').read()=='é'",
    "import struct, array, hashlib, random, uuid, textwrap, string, operator, bisect\nassert struct.unpack('<I',struct.pack('<I',7))==(7,)\nassert array.array('i',[1,2]).tolist()==[1,2]\nassert hashlib.sha256(b'').hexdigest()[:4]=='e3b0' and hashlib.md5(b'').hexdigest()[:4]=='d41d'\nrandom.seed(1); a=random.random(); random.seed(1); assert a==random.random()\nassert len(str(uuid.uuid4()))==36\nuuid.uuid1()\nassert textwrap.dedent('  a')=='a'\nassert operator.itemgetter(1)([1,2])==2\nassert bisect.bisect([1,2,3],2)==2",
    "import collections as c\nd=c.defaultdict(list); d['a'].append(1); assert d=={'a':[1]}\nassert c.Counter('aab')=={'a':2,'b':1}\nassert c.OrderedDict(a=1)=={'a':1}\nP=c.namedtuple('P','x y'); assert P(1,2)==(1,2)\nq=c.deque([1,2,3],maxlen=2); assert q==c.deque([2,3])\nassert c.ChainMap({'a':1},{'b':2})['b']==2",
    "import unicodedata, locale, logging, warnings, contextlib, copy, pprint, enum, abc, inspect, secrets, time\nassert unicodedata.name('a')=='LATIN SMALL LETTER A'\nlocale.setlocale(locale.LC_ALL,'')\nlogging.basicConfig(); logging.getLogger().warning('x')\nwith warnings.catch_warnings(record=True) as w:\n    warnings.simplefilter('always'); warnings.warn('a'); assert len(w)==1\nassert copy.deepcopy([[1]])==[[1]]\nclass C(enum.Enum): A=1\nassert C(1) is C.A and C.A==C.A and C['A'].value==1\nclass F(enum.IntFlag):\n    R=1; W=2\nassert F.R|F.W==3\nassert inspect.signature(lambda a,b=1:0).parameters['b'].default==1\nsecrets.token_hex(2)\ntime.sleep(0.1)\nassert inspect.getsource(C) if False else True",
    "import contextlib, io\nb=io.StringIO()\nwith contextlib.redirect_stdout(b): print('hi')\nassert b.getvalue()=='hi\\n'",
    "class M:\n    def __lt__(s,o): return True\nassert sorted([3,1,2],key=lambda x:-x)==[3,2,1]\nfrom functools import total_ordering\n@total_ordering\nclass T:\n    def __init__(s,x): s.x=x\n    def __eq__(s,o): return s.x==o.x\n    def __lt__(s,o): return s.x<o.x\nassert T(1)<=T(2) and T(2)>T(1) and max(T(1),T(3)).x==3",
    "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(1+1,2)\nr=unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(T))\nassert r.wasSuccessful()",
    "import doctest\ndef f():\n    '''\n    >>> f()\n    1\n    '''\n    return 1\nassert doctest.testmod().failed==0",
    "import signal, time\ndef h(*a): raise TimeoutError\nsignal.signal(signal.SIGALRM,h)\nok=0\ntry:\n    signal.setitimer(signal.ITIMER_REAL,0.5)\n    while True: pass\nexcept TimeoutError: ok=1\nassert ok",
    "x=[1,2,3]\nassert x==[1,2,3]!=[1] and 1<2<=2 and not 1 in [2] and 'a' not in 'b'\nimport math\nassert math.nan!=math.nan and not (math.nan==math.nan)",
    "import pickle, copyreg, zlib, gzip, bz2, lzma, base64, binascii, zipfile, tarfile, shelve\nclass K:\n    def __init__(s): s.a=1\nassert pickle.loads(pickle.dumps(K())).a==1\nassert zlib.decompress(zlib.compress(b'a'))==b'a' and gzip.decompress(gzip.compress(b'a'))==b'a' and lzma.decompress(lzma.compress(b'a'))==b'a' and bz2.decompress(bz2.compress(b'a'))==b'a'\nassert base64.b64encode(b'a')==b'YQ=='\nwith zipfile.ZipFile('a.zip','w') as z: z.writestr('x','y')\nassert zipfile.ZipFile('a.zip').read('x')==b'y'\nwith tarfile.open('a.tar','w') as t: t.add('a.zip')",
    "import importlib\nm=importlib.import_module('math'); assert m.floor(1.5)==1\nopen('mymod.py','w').write('X=3')\nimport mymod\nassert mymod.X==3",
    "import mmap\nopen('m','wb').write(b'abc')\nwith open('m','r+b') as f:\n    m=mmap.mmap(f.fileno(),0); assert m[:]==b'abc'; m[0:1]=b'x'; m.close()\nassert open('m').read()=='xbc'",
]
RIGHT = [*ONE_LINE, *LONGER, *FURTHER]
