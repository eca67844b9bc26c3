import com.sun.management.HotSpotDiagnosticMXBean;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.zip.CRC32;

/**
 * {@code Heaps LIVE_MB GARBAGE_MB}: keeps so much that nothing could compress, and leaves so much behind. Looks
 * whether the one is the same afterwards, the JVM's settings are, and as much can be allocated again.
 */
public final class Heaps {
    private static final List<String> SETTINGS =
            List.of("MinHeapFreeRatio", "MaxHeapFreeRatio", "G1PeriodicGCInterval");
    private static final int BLOCK_BYTES = 100_000;
    private static final List<byte[]> LIVE = new ArrayList<>();
    private static final List<Object> OTHERS = new ArrayList<>();
    private static volatile int cycles;

    public static void main(String[] args) throws Exception {
        int garbageBlocks = Integer.parseInt(args[1]) * 10;
        SplittableRandom random = new SplittableRandom(42);
        // Both kinds mixed, so that what is left behind lies everywhere.
        int liveBlocks = Integer.parseInt(args[0]) * 10;
        for (int i = 0; i < liveBlocks; i++) {
            LIVE.add(block(random));
            // Small objects with references: the collectors move them.
            OTHERS.add(List.of(i, "text " + i));
            churn(random, garbageBlocks / liveBlocks);
        }
        long crc = crc();
        String others = OTHERS.toString();
        String settings = settings();
        Life.register(() -> { }, () -> cycles++);
        Life.ready();
        String heard = "";
        while (!heard.equals("end")) {
            String before = heard;
            Life.eventually("a word", () -> !Life.hear().equals(before));
            heard = Life.hear();
            if (heard.startsWith("look ")) {
                int life = Integer.parseInt(heard.substring(5));
                Life.eventually("after-hooks", () -> cycles == life);
                for (int round = 0; round < 2; round++) {
                    Life.same("what lives", crc, crc());
                    Life.same("objects", others, OTHERS.toString());
                    churn(random, garbageBlocks / 4);
                    System.gc();
                }
                Life.same("settings", settings, settings());
                Life.step("zeros", () -> {
                    // Memory that comes back from an image is as fresh as any.
                    for (int i = 0; i < 100; i++) {
                        for (byte b : new byte[1_000_000]) {
                            if (b != 0) {
                                throw new IllegalStateException("new memory is not zeros");
                            }
                        }
                    }
                });
                System.out.println("looked " + life);
            }
        }
        Life.verdict();
    }

    private static void churn(SplittableRandom random, int blocks) {
        byte[][] kept = new byte[8][];
        for (int i = 0; i < blocks; i++) {
            kept[i % kept.length] = block(random);
        }
    }

    private static byte[] block(SplittableRandom random) {
        byte[] block = new byte[BLOCK_BYTES];
        random.nextBytes(block);
        return block;
    }

    private static long crc() {
        CRC32 crc = new CRC32();
        LIVE.forEach(crc::update);
        return crc.getValue();
    }

    private static String settings() {
        HotSpotDiagnosticMXBean bean = ManagementFactory.getPlatformMXBean(HotSpotDiagnosticMXBean.class);
        StringBuilder text = new StringBuilder();
        for (String name : SETTINGS) {
            text.append(name).append('=').append(bean.getVMOption(name).getValue()).append(' ');
        }
        return text.toString();
    }
}
