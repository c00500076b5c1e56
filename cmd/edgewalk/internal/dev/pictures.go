package dev

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
)

// pattern says whether the pixel at (x, y) of a picture has the second colour.
type pattern func(x, y int) bool

const width, height = 480, 320

func disc(x, y int) bool {
	dx, dy := x-width/2, y-height/2
	return dx*dx+dy*dy < 110*110
}

func stripes(x, y int) bool { return (x+y)/40%2 == 0 }

func squares(x, y int) bool { return (x/40+y/40)%2 == 0 }

func frame(x, y int) bool { return x < 24 || y < 24 || x >= width-24 || y >= height-24 }

// picture draws a PNG of two colours, so that a person sees at once which storage it came from.
func picture(back, front color.RGBA, p pattern) ([]byte, error) {
	img := image.NewPaletted(image.Rect(0, 0, width, height), color.Palette{back, front})
	for y := range height {
		for x := range width {
			if p(x, y) {
				img.SetColorIndex(x, y, 1)
			}
		}
	}
	var out bytes.Buffer
	if err := png.Encode(&out, img); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

var (
	white  = color.RGBA{0xff, 0xff, 0xff, 0xff}
	grey   = color.RGBA{0x9a, 0xa0, 0xa6, 0xff}
	blue   = color.RGBA{0x1a, 0x73, 0xe8, 0xff}
	orange = color.RGBA{0xe8, 0x71, 0x0a, 0xff}
	green  = color.RGBA{0x18, 0x80, 0x38, 0xff}
)
