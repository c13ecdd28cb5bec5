"""The routes of girder_large_image on an item, for tests that try them all."""

# What reads the file: the path below the item, and parameters.
READING = {
    'tiles': {},
    'tiles/internal_metadata': {},
    'tiles/zxy/0/0/0': {},
    'tiles/fzxy/0/0/0/0': {},
    'tiles/region': {'width': 100, 'height': 100},
    'tiles/region as PNG': {'encoding': 'PNG', 'width': 100, 'height': 100},
    'tiles/region as TIFF': {'encoding': 'TILED'},
    'tiles/thumbnail': {'width': 50},
    'tiles/tile_frames': {'frameList': '0', 'width': 50},
    'tiles/tile_frames/quad_info': {},
    'tiles/pixel': {'left': 1, 'top': 1},
    'tiles/histogram': {},
    'tiles/bands': {},
    'tiles/images': {},
    'tiles/images/label': {},
    'tiles/images/label/metadata': {},
    'tiles/dzi.dzi': {},
    'tiles/dzi_files/8/0_0.jpeg': {},
}
# The others: for administrators, and what changes the item.
OTHERS = {
    ('GET', 'tiles/thumbnails'): {},
    ('POST', 'tiles/thumbnails'): {'spec': '[]'},
    ('DELETE', 'tiles/thumbnails'): {},
    ('POST', 'tiles'): {},
    ('POST', 'tiles/convert'): {},
    ('DELETE', 'tiles'): {},
}


def path_of(route):
    """The path of a route, without the words that tell it from its like."""
    return route.partition(' as ')[0]
