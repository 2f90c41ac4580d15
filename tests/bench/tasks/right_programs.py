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
RIGHT = [*ONE_LINE, *LONGER]
